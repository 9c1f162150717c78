"""What the lines of a history say of the model, and that none is read as if it said less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.structures.model_line import LinkingLine, ModelLine, RescoringLine

LINES = {
    ModelLine: ModelLine.text("a3d", "c0" * 32, "w, b (1).pth", "0a" * 32),
    LinkingLine: "2D boxes scored 0.05 or more, linked at IoU above 0.5; findings scored 0.3 or more",
    RescoringLine: "scores are the mean of the detector's and those of net (SHA-256 0a), weights w",
}
STARTS = {ModelLine: "model ", LinkingLine: "2D boxes scored ", RescoringLine: "scores are "}
TEXTS = st.text(min_size=1)


@given(
    TEXTS.filter(lambda text: ", weights " not in text and " (config " not in text),
    TEXTS,
    st.text("0123456789abcdef", min_size=64),
)
def test_models_come_back(name, file, digest):
    line = ModelLine.text(name, digest[::-1], file, digest)
    assert ModelLine.find(["read", line], "x") == ModelLine(name, digest[:16], digest[::-1][:16])


@given(st.sampled_from(["average", "alone"]), TEXTS)
def test_rescoring_comes_back(mode, network):
    line = RescoringLine(mode, network)
    assert RescoringLine.find(["read", str(line)], "x") == line


def test_linking_comes_back():
    line = LinkingLine("0.05 or more, linked at IoU above 0.5, max_gap 2", "0.3 or more")
    assert LinkingLine.find(["read", str(line)], "x") == line


@pytest.mark.parametrize("kind", LINES)
def test_a_history_without_such_a_line_says_nothing(kind):
    assert kind.find(None, "x") is kind.find(["read", "resampled"], "x") is None


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (ModelLine, LINES[ModelLine].replace("(SHA-256 0a", "(SHA 256 0a")),
        (ModelLine, LINES[ModelLine].replace("(config SHA-256", "(config SHA 256")),
        (ModelLine, LINES[ModelLine].replace(" (config", "(config")[:-2]),
        (ModelLine, LINES[ModelLine].replace("0a0a)", ")")),
        (ModelLine, LINES[ModelLine] + " and more"),
        (ModelLine, "model "),
        (LinkingLine, "2D boxes scored 0.05 or more, linked at IoU above 0.5, fp32"),
        (LinkingLine, "2D boxes scored ; findings scored 0.3 or more"),
        (RescoringLine, "scores are the average of the detector's and those of net"),
        (RescoringLine, "scores are the mean of the detector's and those of "),
        (RescoringLine, "scores are those of "),
        (RescoringLine, "scores are "),
    ],
)
def test_a_line_that_is_not_as_we_write_it_is_refused(kind, line):
    with pytest.raises(InputError, match=r"found\.json: its history says '.*', which is cut off, changed or of"):
        kind.find(["read", line], "found.json")


@pytest.mark.parametrize("kind", LINES)
def test_a_line_that_is_cut_off_never_says_something_else(kind):
    whole = kind.find([LINES[kind]], "x")
    for end in range(len(STARTS[kind]), len(LINES[kind])):
        try:
            found = kind.find([LINES[kind][:end]], "x")
        except InputError:
            continue
        if kind is ModelLine:  # a name alone, of a model of which nothing else is known
            assert (found.digest, found.config) == (None, None) and len(found.name) < len("a3d (config ")
        elif kind is LinkingLine:  # on what is shown no score depends
            assert found.rules == whole.rules
        else:
            assert found.mode == whole.mode
