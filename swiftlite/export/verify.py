"""The logits of a merged model against those of base + adapter, both in transformers."""

import logging
import tempfile
import warnings
from typing import Any

import torch

from swiftlite.checkpoint import native_checkpoint, read_config, write_adapter
from swiftlite.checkpoint.adapter import Adapter
from swiftlite.errors import SwiftliteError

ROWS, LENGTH = 4, 48  # random token ids: every module is exercised, no prompt is needed
LARGE = 1_000_000_000  # hidden * hidden * layers above which the check runs in the checkpoint's dtype


def verify(base: str, adapter: Adapter, merged: str) -> str:
    """One line with the gap between merged and base + adapter over random tokens, in fp32 (large models: as saved).

    Raises:
        SwiftliteError: the gap is more than half of what the adapter itself changes.
    """
    import transformers
    from transformers import AutoModelForCausalLM

    transformers.logging.disable_progress_bar()
    config = read_config(base)
    small = 12 * config['hidden_size'] ** 2 * config['num_hidden_layers'] < LARGE
    dtype: Any = torch.float32 if small else 'auto'
    ids = torch.randint(config['vocab_size'], (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    wanted, plain = _adapter_logits(base, adapter, ids, dtype)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=dtype).eval()
    with torch.inference_mode():
        found = model(ids.to(model.device)).logits.float().cpu()
    gap, effect = (found - wanted).abs(), (plain - wanted).abs().mean().item()
    same = (found.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    text = (
        f'verify: logit gap between merged and adapter max {gap.max():.2e}, mean {gap.mean():.2e} '
        f'(the adapter itself moves logits by {effect:.2e}); same next token at {same:.1%} of {ids.numel()} positions'
    )
    if gap.mean().item() > 0.5 * effect:
        raise SwiftliteError(f'the adapter is lost in rounding, or the merged model is wrong; {text}')
    return text


def _adapter_logits(base: str, adapter: Adapter, ids: torch.Tensor, dtype: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [ROWS, LENGTH, V] fp32 with the adapter and without it."""
    logging.getLogger('bitsandbytes').setLevel(logging.ERROR)  # peft imports it where it is installed
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    warnings.simplefilter('ignore', FutureWarning)  # peft on the newest transformers
    model = AutoModelForCausalLM.from_pretrained(native_checkpoint(base), dtype=dtype)
    if (rows := adapter.vocab_size or 0) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(folder, adapter)
        tuned = PeftModel.from_pretrained(model, folder).eval()
    with torch.inference_mode():
        wanted = tuned(ids).logits.float()
        with tuned.disable_adapter():
            plain = tuned(ids).logits.float()
    return wanted, plain
