"""Answers of the model while it is trained, to see what the loss does not say."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError
from swiftlite.template import Template

SAMPLES = 'samples.jsonl'


def read_prompts(args: SftArgs) -> list[str]:
    """The questions of --sample_prompts: themselves, or the lines of files.

    Raises:
        UsageError: a file has none, or cannot be read as text.
    """
    found: list[str] = []
    for word in args.sample_prompts:
        path = Path(word).expanduser()
        lines = [word]
        if len(word) < 1000 and path.is_file():
            try:
                lines = [line for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
            except UnicodeDecodeError:
                raise UsageError(f"--sample_prompts '{word}' is not UTF-8 text") from None
            except OSError as error:
                raise UsageError(f"--sample_prompts '{word}' cannot be read: {error.strerror}") from None
            if not lines:
                raise UsageError(f"--sample_prompts '{word}' has no line with a question")
        found += lines
    return found


class Samples(TrainerCallback):
    """Greedy answers to --sample_prompts every --sample_steps and after the last step, into samples.jsonl of the run.

    Where weights are shared out, all processes answer together, since each holds a part of every layer.
    """

    def __init__(self, trainer: Any, args: SftArgs, template: Template, folder: Path, say: Any):
        assert args.sample_steps is not None
        self.trainer, self.template, self.say = trainer, template, say
        self.every, self.tokens, self.file = args.sample_steps, args.sample_tokens, folder / SAMPLES
        self.prompts = read_prompts(args)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        together = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        if not together and not state.is_world_process_zero:
            return
        for prompt in self.prompts:
            answer = self.answer(prompt)
            if state.is_world_process_zero:
                line = {'step': state.global_step, 'query': prompt, 'response': answer}
                with self.file.open('a', encoding='utf-8') as stream:
                    stream.write(json.dumps(line, ensure_ascii=False) + '\n')
                self.say(f'sample  step {state.global_step}  {prompt} → {answer}')

    @torch.no_grad()
    def answer(self, prompt: str) -> str:
        """The model's reply, without what ends it."""
        model, tokenizer = self.trainer.accelerator.unwrap_model(self.trainer.model), self.template.tokenizer
        ids = torch.tensor(
            [self.template.encode([{'role': 'user', 'content': prompt}])], device=self.trainer.args.device
        )
        training = model.training
        model.eval()
        half = torch.bfloat16 if self.trainer.args.bf16 else torch.float16
        mixed = (self.trainer.args.bf16 or self.trainer.args.fp16) and not self.trainer.is_fsdp_enabled
        with torch.autocast(ids.device.type, dtype=half) if mixed else nullcontext():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=self.tokens,
                use_cache=True,
                eos_token_id=list(self.template.stop_token_ids),
                pad_token_id=tokenizer.pad_token_id or 0,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        model.train(training)
        reply = [token for token in out[0, ids.shape[1] :].tolist() if token not in self.template.stop_token_ids]
        text = tokenizer.decode(reply)
        for stop in self.template.stop_strings:
            text = text.partition(stop)[0]
        return text.strip()
