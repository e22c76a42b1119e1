"""One W and one X, compressed by a peer and by us: equal masks and codes, equal output error."""

import pytest

from tests.oracles.agreement import BOUNDS, MATRICES, UNLIKE, cases, compare, measure, problem
from tests.oracles.peers import LLMCOMPRESSOR


@pytest.mark.parametrize("case", tuple(cases()), ids=lambda case: f"{case.peer}-{case.matrix}-{case.recipe}")
def test_the_same_decisions_and_the_same_error(case, need):
    need(case.peer)
    found = measure(case)
    assert found.within(BOUNDS[case.method]), found


@pytest.mark.parametrize("recipe", UNLIKE)
def test_the_known_difference_at_a_dead_input_is_all_there_is(recipe, need):
    """With the dead input's weights 0 from the start, llm-compressor's static scales are ours."""
    need(LLMCOMPRESSOR)
    weight, inputs = problem("dead input")
    assert not compare(LLMCOMPRESSOR, recipe, weight, inputs).within(BOUNDS["gptq"])
    weight = weight.clone()
    weight[:, MATRICES["dead input"][2]] = 0
    found = compare(LLMCOMPRESSOR, recipe, weight, inputs)
    assert found.within(BOUNDS["gptq"]), found
