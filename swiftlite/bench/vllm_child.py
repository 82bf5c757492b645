"""Runs vLLM over requests from a file, in a Python of its own; prints a JSON line a workload.

A script: `python vllm_child.py SPEC`. It imports nothing of swiftlite, since that Python may not have it.
"""

import json
import sys
import time
from pathlib import Path

MARK = 'swiftlite-bench '  # before each line that is meant for the parent


def main(spec: dict) -> None:
    """Start the engine, then warm up and time each workload as the parent does with its own."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    detokenize = spec['detokenize']
    llm = LLM(model=spec['model'], skip_tokenizer_init=not detokenize, **spec['options'])
    startup = time.time() - process_start()
    loras = [LoRARequest(f'adapter-{i}', i + 1, path) for i, path in enumerate(spec['adapters'])]

    def seconds(requests: list, bar: bool) -> float:
        prompts = [{'prompt_token_ids': ids} for ids, _, _ in requests]
        params = [
            SamplingParams(
                **spec['sampling'],
                ignore_eos=True,
                max_tokens=count,
                detokenize=detokenize,
                seed=spec['seed'] + i if spec['sampling']['temperature'] else None,
            )
            for i, (_, count, _) in enumerate(requests)
        ]
        adapters = [None if index is None else loras[index] for _, _, index in requests]
        more = {'lora_request': adapters} if loras else {}
        start = time.perf_counter()
        outs = llm.generate(prompts, params, use_tqdm=bar, **more)
        took = time.perf_counter() - start
        if [len(o.outputs[0].token_ids) for o in outs] != [count for _, count, _ in requests]:
            raise RuntimeError('vLLM made other numbers of tokens than it was asked for')
        return took

    for work in spec['work']:
        if work['warm_up']:
            seconds(work['warm_up'], False)
        found = []
        for _ in range(spec['repeats']):
            llm.reset_prefix_cache()
            found.append(seconds(work['requests'], True))
        line = {'workload': work['workload'], 'seconds': found, 'startup': startup}
        print(MARK + json.dumps(line), flush=True)


def process_start() -> float:
    """Seconds since the epoch at which this process was created; psutil is a requirement of vLLM."""
    import psutil

    return psutil.Process().create_time()


if __name__ == '__main__':
    here = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != here]  # modules beside this script are not vLLM's
    main(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8')))
