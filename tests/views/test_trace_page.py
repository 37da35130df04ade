import math
import re
import subprocess
import sys

import pytest
from strict_html import EVIL, Strict

from atmanrl.errors import UserError
from atmanrl.views import trace_text
from atmanrl.views.trace_page import TraceView, colour_scale, fragment, page, shares, spans


def view(number=0, **options):
    given = {
        "id": f"p/{number}", "prompt": "What is 3 + 4?", "token_texts": [" 3", " +", " 4", " = 7"],
        "saliency": [0.1, 0.0, 0.3, 0.2], "answer": "7", "gold": "7", "correct": True, "reward": 0.15,
        "loss_initial": 2.0, "loss_final": 0.5,
    }  # fmt: skip
    return TraceView(**{**given, **options})


def test_a_page_of_many_traces():
    items = [view(n, correct=[True, False, None][n % 3], reward=n / 100) for n in range(300)]
    parsed = Strict(page("Traces", items, intro="of a run"))
    cards = parsed.named("article")
    assert [card["data-order"] for card in cards] == [str(n) for n in range(300)]
    assert [card["data-right"] for card in cards[:3]] == ["right", "wrong", ""]
    assert cards[7]["data-reward"] == "0.070" and cards[7]["data-gain"] == "1.500" and cards[7]["data-length"] == "4"
    assert len(parsed.named("script")) == 2
    assert all(word in parsed.text for word in ("Traces", "of a run", "2.000 → 0.500", "largest first"))


def test_every_text_is_escaped():
    hostile = dict.fromkeys(("id", "prompt", "answer", "gold", "note"), EVIL) | {"token_texts": [EVIL] * 4}
    clean, dirty = page("T", [view(), view()]), page(EVIL, [view(**hostile), view()], intro=EVIL)
    parsed = Strict(dirty)
    assert len(parsed.named("script")) == len(Strict(clean).named("script")) == 2
    assert parsed.text.count(EVIL) == 12  # title twice, intro, five fields, four tokens
    assert "<script>alert" not in dirty + fragment(view(**hostile))
    assert parsed.named("span")[-1].keys() == Strict(clean).named("span")[-1].keys()


def test_nothing_is_loaded():
    for text in (page("T", [view(), view()]), fragment(view())):
        assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", text)
    assert "default-src 'none'" in page("T", [view()])


def test_text_and_values_of_a_trace():
    parsed = Strict(page("T", [view(token_texts=[" a\n", "", "", "😀"], saliency=[0.5, 0.1, 0.2, 0.6])]))
    assert " a\n😀" in parsed.text
    tips = [span["title"] for span in parsed.named("span") if "title" in span]
    assert tips == ["0.500", "0.300, mean of 3 tokens"]


def test_what_is_missing_is_left_out():
    bare = view(saliency=None, answer=None, correct=None, reward=None, loss_initial=None, loss_final=None)
    for item in (bare, view(saliency=None, reward=math.nan, loss_initial=math.nan)):
        parsed = Strict(page("T", [item]))
        assert parsed.named("article")[0]["data-reward"] == parsed.named("article")[0]["data-gain"] == ""
        assert " 3 + 4 = 7" in parsed.text and "nan" not in parsed.text and "None" not in parsed.text
    assert Strict(page("none", [])).named("article") == []


def test_a_lone_surrogate_can_be_written(tmp_path):
    (tmp_path / "page.html").write_text(page("T", [view(prompt="a \ud800 b")]), encoding="utf-8")


def test_saliency_of_another_tokenizer():
    with pytest.raises(UserError, match="p/3: 2 saliencies for 4 tokens"):
        page("T", [view(), view(3, saliency=[0.1, 0.2])])


def test_white_is_0_and_the_ends_are_the_99th_percentile_of_the_sizes():
    assert colour_scale([view(saliency=None)]) == 0.0
    assert colour_scale([view(saliency=[0.0, math.nan, 0.3, 0.2]), view(saliency=[-0.5, 0.4, 0.1, 0.1])]) == 0.5
    many = [view(token_texts=["a"] * 101, saliency=[n / 100 * (-1) ** n for n in range(101)])]
    assert colour_scale(many) == 0.99
    assert shares([-9.0, -0.25, 0.0, 0.5, 9.0, math.nan], 0.5) == [-1, -0.5, 0, 1, 1, 0]
    assert shares([0.0, 0.0], 0.0) == [0, 0]


def test_a_token_below_0_is_blue_and_one_at_0_has_no_colour():
    parsed = Strict(page("T", [view(saliency=[-0.1, 0.0, 0.4, -0.4])]))
    tokens = [span for span in parsed.named("span") if "title" in span]
    assert [span.get("class") for span in tokens] == ["below", None, None, "below"]
    assert [span["style"] for span in tokens] == ["--s:0.25", "--s:0.0", "--s:1.0", "--s:1.0"]
    for text in (parsed.text, Strict(fragment(view(saliency=[-0.1, 0.0, 0.4, -0.4]))).text):
        assert "saliency -0.400" in text and "No colour is 0, red above, blue below; 99 %" in text
    coloured = trace_text.coloured(view(saliency=[-0.4, 0.0, 0.4, 0.2]))
    styles = [str(span.style) for span in coloured.spans if "rgb" in str(span.style)]
    assert styles == ["black on rgb(110,165,220)", "black on rgb(224,110,96)", "black on rgb(240,182,176)"]


def test_spans_join_to_the_reasoning():
    item = view(token_texts=["", "中", "", "<", "\n"], saliency=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert "".join(text for text, _, _ in spans(item, 1.0)) == "中<\n"


def test_plain_text_has_a_bar_beneath_each_token():
    lines = trace_text.plain(view(token_texts=[" 中", " +", "\n", "x" * 90], saliency=[0.3, 0.0, 0.0, 0.15])).split(
        "\n"
    )
    assert lines[0] == "p/0 | saliency reward 0.150 | answer loss 2.000 -> 0.500 nats | 4 tokens"
    assert lines[1:3] == [" 中 +", " ██"]  # a Chinese character is two cells wide
    assert lines[3] == "x" * 90 and set(lines[4]) == {"▄"}
    assert lines[5] == "answer 7 | gold 7 | tokens from 0.000 to 0.300"


def test_long_plain_text_is_wrapped():
    lines = trace_text.plain(view(token_texts=[" word"] * 100, saliency=[n / 100 for n in range(100)])).split("\n")
    assert max(map(len, lines)) <= trace_text.WIDTH and "".join(lines).count("word") == 100


def test_reports_import_no_torch():
    code = "import atmanrl.views.trace_page, atmanrl.views.trace_text, atmanrl.views.figure1, sys; "
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True)
