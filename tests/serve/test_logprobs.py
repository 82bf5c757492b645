from swiftlite.engine.outputs import Logprob
from swiftlite.serve.logprobs import CompletionLogprobs, chat_logprobs


def test_a_tie_makes_no_extra_entry() -> None:
    """Token 9 was drawn; it is as likely as 5, which the list of the best holds."""
    step = {5: Logprob(-1.0, 1, 'five'), 6: Logprob(-2.0, 2, 'six'), 9: Logprob(-1.0, 1, 'nine')}
    (entry,) = chat_logprobs([9], [step], 2, False)
    assert entry['token'] == 'nine' and len(entry['top_logprobs']) == 2
    lists = CompletionLogprobs(1, False, None).feed([9], [step])
    assert lists['tokens'] == ['nine'] and set(lists['top_logprobs'][0]) == {'five', 'nine'}
