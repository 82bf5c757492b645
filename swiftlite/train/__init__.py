"""Fine-tuning: rows of conversations in, a checkpoint folder out. `sft.run` reads top to bottom."""

import logging

# transformers and peft import it where it is installed; on a CPU it misses a kernel of the hub
logging.getLogger('bitsandbytes').setLevel(logging.ERROR)
