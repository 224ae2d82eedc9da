"""Templates: what they give, what they refuse, and that none of them runs away."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest.sandbox import TemplateError, UndefinedNameError
from batchgen.manifest.template import compile_expression, compile_template, present

VALUES = present(
    {
        "title": "Blue Mug",
        "body": "<p>Salt &amp; pepper</p>",
        "number": 3,
        "zero": 0,
        "flag": True,
        "nothing": None,
        "tags": ["a", "b"],
        "size": {"items": "six", "depth": None},
        "blob": b"x",
        "row": {"Body (HTML)": "raw"},
    }
)


def render(text: str) -> str:
    return compile_template(text).render(VALUES)


def problem(text: str) -> str:
    with pytest.raises(TemplateError) as caught:
        compile_template(text).render(VALUES)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no template at 100 % { }", "no template at 100 % { }"),
        ("{{ title }}, {{ number }} at 100 %s\n", "Blue Mug, 3 at 100 %s\n"),
        ("{{ title|upper }} {{ number }}", "BLUE MUG 3"),
        ("{{ body | striptags | truncate(200) }}", "Salt & pepper"),
        ("{{ title | slug }}", "blue-mug"),
        ("{{ title ~ '-' ~ number }}", "Blue Mug-3"),
        ("{{ tags | join(', ') }}", "a, b"),
        ("{{ '%03d' | format(number) }} {{ '%s/%s' % (title, 1) }}", "003 Blue Mug/1"),
        ("{{ title | replace('Mug', 'Cup') }}", "Blue Cup"),
        ("{{ row['Body (HTML)'] }}", "raw"),
        ("{{ size.items }}", "six"),
        ("{{ flag }}", "true"),
        ("{{ (7 / 3) | round(2) }}", "2.33"),
        ("{% for tag in tags %}{{ loop.index }}{{ tag }} {% endfor %}", "1a 2b "),
        ("{% set t = title %}{% if number > 2 %}{{ t }}{% endif %}", "Blue Mug"),
        ("<b>{{ body }}</b>", "<b><p>Salt &amp; pepper</p></b>"),
    ],
)
def test_templates_render(text: str, expected: str) -> None:
    assert render(text) == expected


def test_unknown_name_is_reported_with_the_nearest_column() -> None:
    with pytest.raises(UndefinedNameError, match=r"no column 'titel'; did you mean 'title'\?"):
        render("{{ titel }}")
    assert problem("{{ xyz | upper }}").startswith("no column 'xyz'; there are: title, body, ")
    assert problem("{{ row['Body HTML'] }}") == "no column 'Body HTML'; did you mean 'Body (HTML)'?"


@pytest.mark.parametrize(
    "text",
    ["{{ nothing }}", "{{ nothing | upper }}", "{{ nothing | striptags }}", "{{ nothing ~ '!' }}"],
)
def test_null_is_never_printed(text: str) -> None:
    assert "column 'nothing' is empty (null) in this row" in problem(text)


def test_null_inside_a_value_is_never_printed() -> None:
    assert "'size.depth' is empty (null)" in problem("{{ size.depth | upper }}")
    assert "null" in problem("{{ none }}")


def test_null_is_false_and_gives_way_to_a_default() -> None:
    assert render("{{ nothing | default('x') }}{{ nothing | default('y', true) }}") == "xy"
    assert render("{% if nothing %}a{% else %}b{% endif %}") == "b"
    assert render("{{ nothing is none }} {{ nothing == none }} {{ title is none }}") == (
        "true true false"
    )


@pytest.mark.parametrize(
    "text", ["{{ tags }}", "{{ size }}", "{{ blob }}", "{{ tags | map('upper') }}"]
)
def test_values_other_than_text_are_not_printed(text: str) -> None:
    assert "would be printed" in problem(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ '%s' % title.upper }}",
        "{{ '%s' | format(title.upper) }}",
        "{{ '%r' % title['upper'] }}",
        "{{ title.upper | lower }}",
        "{{ tags.index ~ 'x' }}",
        "{% set m = title.upper %}{{ m | trim }}",
        "{{ [title.upper] | join }}",
        "{{ range | upper }}",
        "{{ '%s' % range }}",
        "{{ tags | map('upper') | lower }}",
        "{{ '%s' % (tags | reverse) }}",
        "{% for tag in tags %}{{ loop | string }}{% endfor %}",
        "{% for tag in tags %}{{ '%s' % loop.cycle }}{% endfor %}",
        "{{ title.split | wordcount }}",
        "{{ self | title }}",
    ],
)
def test_nothing_prints_its_place_in_memory(text: str) -> None:
    """Printed, it would change every prompt in every run, and buy all images again."""
    assert " at 0x" not in problem(text)


@pytest.mark.parametrize(
    "text", ["{% if title.isupper %}a{% endif %}", "{{ title.upper == 'A' }}", "{{ range }}"]
)
def test_method_without_a_call_is_refused(text: str) -> None:
    assert "expected a call" in problem(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ title.upper() }} {{ title['lower']() }}", "BLUE MUG blue mug"),
        ("{{ title.split(' ')[0].lower() }}", "blue"),
        ("{{ title | truncate(4, true, '', 0) }}{{ number | upper }}", "Blue3"),
        ("{{ '%s' % flag }} {{ '%d' % flag }}", "True 1"),
        ("{% for tag in tags %}{{ loop.cycle('x', 'y') }}{% endfor %}", "xy"),
        ("{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}{{ range(3) | sum }}", "23"),
    ],
)
def test_methods_and_filters_work_when_called(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.fault("M19")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\ntwo {{ title", "line 2 of the template"),
        ("{{ title | stripptags }}", "no filter 'stripptags'; did you mean 'striptags'?"),
        ("{{ 1 / zero }}", "division by zero"),
        ("{{ title + number }}", "the template fails"),
        ("{{ title.__class__ }}", "cannot be used in a template"),
        ("{{ ''['__class__']['__mro__'] }}", "cannot be used in a template"),
        ("{{ '{0.__class__}'.format(title) }}", "cannot be used in a template"),
        ("{{ tags.append('c') }}", "cannot be used in a template"),
        ("{{ lipsum() }}", "no column 'lipsum'"),
        ("{{ tags | random }}", "no filter 'random'"),
        ("{% include 'secret' %}", "include is for web pages"),
        ("{% macro a() %}{% endmacro %}", "macro is for web pages"),
        ("{% block a %}{% endblock %}", "block is for web pages"),
        ("{% for a in tags recursive %}{{ loop(tags) }}{% endfor %}", "no recursive loops"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep"),
        ("{% for i in tags %}" * 30 + "{% endfor %}" * 30, "cannot be compiled"),
        ("a color {#ff0000}", "Missing end of comment"),
    ],
)
def test_impossible_template_is_reported(text: str, words: str) -> None:
    assert words in problem(text)


@pytest.mark.fault("M19")
@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
        "{% for a in title * 9999 %}{% for b in title * 9999 %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [tags] * 10**9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 2 ** (10 ** 9) }}",
        "{% set s = 9 %}" + "{% set s = s * s %}" * 60 + "{{ s }}",
        "{% set s = title %}" + "{% set s = s ~ s %}" * 60 + "{{ s }}",
        "{% set s = title %}" + "{% set s = s + s %}" * 60 + "{{ s }}",
        "{% set s = title %}" + "{% set s = [s, s] | join %}" * 60 + "{{ s }}",
        "{% set s = title %}" + "{% set s %}{{ s }}{{ s }}{% endset %}" * 60 + "{{ s }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ ('a' * 900000) | replace('', 'b' * 900000) }}",
        "{{ title.ljust(10 ** 9) }}",
        "{{ number | round(10 ** 9) }}",
    ],
)
def test_a_bomb_is_refused_at_once(text: str) -> None:
    assert problem(text)


@given(st.text(alphabet="{}%# ab|()[]'\"\n.,~+*-/<>=_0123456789", max_size=60))
def test_any_text_renders_or_is_refused_politely(text: str) -> None:
    with suppress(TemplateError):
        assert isinstance(compile_template(text).render({"a": "x", "b": 2}), str)


@given(st.text(), st.text(), st.integers())
def test_the_short_way_gives_what_jinja_gives(plain: str, word: str, number: int) -> None:
    plain = re.sub("[{}]", "", plain)
    values = {"word": word, "number": number}
    short = compile_template(plain + "{{ word }}%{{ number }}").render(values)
    long = compile_template(plain + "{{ word }}%{{ number }}{% if false %}{% endif %}")
    assert long.filling is None
    assert short == long.render(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title", True),
        ("nothing", False),
        ("title and number == 3", True),
        ("title == 'x' or zero", False),
        ("tags | length > 5", False),
        ("other is defined and other", False),
        ("row['Body (HTML)'] == 'raw'", True),
        ("number in range(5)", True),
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert compile_expression(text).is_true(VALUES) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel", "no column 'titel'; did you mean 'title'?"),
        ("{{ title }}", "without {{ }}"),
        ("title and", "line 1"),
        ("title) or (title", "unexpected ')'"),
        ("title %}{% if title", "unexpected"),
        ("1 / zero", "division by zero"),
        ("'a' * 10**10", "grows beyond"),
    ],
)
def test_wrong_expression_is_reported(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(words)):
        compile_expression(text).is_true(VALUES)
