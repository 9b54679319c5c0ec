from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gremlins.records.prices import Price, dearest_price, price, worst_case

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
BEFORE_BATCH_PRICES = datetime(2026, 10, 1, tzinfo=UTC)
MODEL = "claude-sonnet-5-5"  # per million: 2 in, 10 out, 0.10 cache read, 2.50 and 4 cache write

counts = st.integers(0, 30_000)
usages = st.builds(
    lambda fresh, out, read, short, long: {
        "input_tokens": fresh,
        "output_tokens": out,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
    },
    counts,
    counts,
    counts,
    counts,
    counts,
)


def usd(usage: dict[str, Any] | None, *, model: str = MODEL, batch: bool = False, at: datetime = AT) -> float | None:
    found = price(model, usage, batch=batch, at=at)
    return None if found is None else found.usd


def test_a_batch_call_costs_half_of_a_live_one() -> None:
    found = price("claude-opus-5-5", {"input_tokens": 60_000, "output_tokens": 6_000}, batch=True, at=AT)
    assert found == Price(usd=0.18, live_usd=0.36)
    assert found.saved_usd == 0.18


def test_a_live_call_saves_nothing() -> None:
    found = price(MODEL, {"input_tokens": 1000, "output_tokens": 100}, batch=False, at=AT)
    assert found == Price(usd=0.003, live_usd=0.003)
    assert found.saved_usd == 0


MILLION = 1_000_000


@pytest.mark.parametrize(
    ("usage", "live"),
    [
        ({"input_tokens": MILLION, "output_tokens": 0}, 2.0),
        ({"input_tokens": 0, "output_tokens": MILLION}, 10.0),
        ({"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": MILLION}, 0.1),
        ({"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": MILLION}, 2.5),
        (
            {
                "input_tokens": 0,
                "output_tokens": 0,
                "cache_creation_input_tokens": MILLION,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": MILLION},
            },
            4.0,
        ),
        (
            {"input_tokens": 0, "output_tokens": 0, "cache_creation": {"ephemeral_1h_input_tokens": MILLION}},
            4.0,
        ),
        ({"input_tokens": MILLION, "output_tokens": 0, "cache_creation": None, "server_tool_use": None}, 2.0),
    ],
)
def test_every_column_has_its_own_price_and_half_of_it_in_a_batch(usage: dict[str, Any], live: float) -> None:
    assert usd(usage) == live
    assert usd(usage, batch=True) == live / 2


def test_cache_tokens_are_not_charged_as_input_too() -> None:
    usage = {"input_tokens": 100, "output_tokens": 0, "cache_read_input_tokens": 1_000_000}
    assert usd(usage) == pytest.approx(0.1002)


def test_web_searches_are_not_discounted() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0, "server_tool_use": {"web_search_requests": 3}}
    assert price(MODEL, usage, batch=True, at=AT) == Price(usd=0.031, live_usd=0.032)


def test_a_batch_before_the_tables_batch_prices_begin_costs_half_too() -> None:
    usage = {"input_tokens": 60_000, "output_tokens": 6_000, "cache_read_input_tokens": 7}
    assert usd(usage, batch=True, at=BEFORE_BATCH_PRICES) == usd(usage, batch=True)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}-20261001", "claude-haiku-4-5-20251001"])
def test_dated_snapshots_cost_what_their_family_costs(model: str) -> None:
    family = "claude-haiku-4-5" if "haiku" in model else MODEL
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    assert usd(usage, model=model, batch=True) == usd(usage, model=family, batch=True)


@pytest.mark.parametrize(("model", "rate"), [(MODEL, 1.1), ("claude-opus-4-6", 1.1), ("claude-haiku-4-5-20251001", 1)])
@pytest.mark.parametrize("batch", [True, False])
def test_inference_kept_in_the_us_costs_a_tenth_more_on_tokens(model: str, rate: float, batch: bool) -> None:
    usage = {"input_tokens": 50_000, "output_tokens": 1000}
    plain = usd(usage, model=model, batch=batch)
    assert plain is not None
    assert usd({**usage, "inference_geo": "us"}, model=model, batch=batch) == pytest.approx(plain * rate)
    assert usd({**usage, "inference_geo": "global"}, model=model, batch=batch) == plain


def test_searches_cost_no_more_in_the_us() -> None:
    usage = {"input_tokens": 0, "output_tokens": 0, "server_tool_use": {"web_search_requests": 1}}
    assert usd({**usage, "inference_geo": "us"}) == 0.01


def test_fast_mode_has_a_price_of_its_own() -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    assert usd({**usage, "speed": "fast"}, model="claude-opus-5-5") == 8.0
    assert usd({**usage, "speed": "standard"}, model="claude-opus-5-5") == 4.0


@pytest.mark.parametrize("model", ["claude-sonnet-9-9", "nope", ""])
def test_a_model_without_a_known_price_is_unpriced_never_free(model: str) -> None:
    assert price(model, {"input_tokens": 1, "output_tokens": 1}, batch=True, at=AT) is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"input_tokens": None, "output_tokens": 5},
        {"input_tokens": "many", "output_tokens": 5},
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": 5},
        {"input_tokens": 5, "output_tokens": 5, "cache_read_input_tokens": -5},
    ],
)
def test_a_usage_that_cannot_be_read_is_unpriced(usage: dict[str, Any] | None) -> None:
    assert price(MODEL, usage, batch=False, at=AT) is None


def test_a_provider_without_a_price_table_is_unpriced() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    assert price(MODEL, usage, batch=False, at=AT, provider="scripted") is None
    assert dearest_price(usage, batch=False, at=AT, provider="scripted") is None


@pytest.mark.parametrize("text", ["the mean of it", "平均値がおかしい", "👩‍🔬🏳️‍🌈", "ትክክል", "sha512-9Fq+/zX0="])
def test_a_worst_case_counts_a_token_for_each_byte_of_any_script(text: str) -> None:
    request = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": text * 1000}]}
    usage = {"input_tokens": len(text.encode()) * 1000, "output_tokens": 100}
    worst, at_most = worst_case(request, batch=True, at=AT), price(MODEL, usage, batch=True, at=AT)
    assert worst is not None
    assert at_most is not None
    assert at_most.usd <= worst < at_most.usd * 1.1


def test_a_worst_case_adds_the_tokens_that_are_counted_already() -> None:
    request = {"model": MODEL, "max_tokens": 100, "messages": []}
    alone, after = (worst_case(request, batch=True, at=AT, counted=tokens) for tokens in (0, 1_000_000))
    million = price(MODEL, {"input_tokens": 1_000_000, "output_tokens": 0}, batch=True, at=AT)
    assert alone is not None
    assert after is not None
    assert million is not None
    assert after - alone == pytest.approx(million.usd)


def test_openai_counts_cached_tokens_within_its_input() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0, "input_tokens_details": {"cached_tokens": 1000}}
    all_cached = price("gpt-5", usage, batch=False, at=AT, provider="openai")
    none_cached = price("gpt-5", {"prompt_tokens": 1000, "completion_tokens": 0}, batch=False, at=AT, provider="openai")
    assert all_cached is not None
    assert none_cached is not None
    assert 0 < all_cached.usd < none_cached.usd


@pytest.mark.parametrize("model", [MODEL, "claude-opus-5-5", "claude-haiku-4-5", "claude-opus-4-1"])
def test_nothing_is_dearer_than_the_dearest_model(model: str) -> None:
    usage = {"input_tokens": 5000, "output_tokens": 500, "cache_read_input_tokens": 5000}
    dearest, own = dearest_price(usage, batch=True, at=AT), price(model, usage, batch=True, at=AT)
    assert dearest is not None
    assert own is not None
    assert dearest.usd >= own.usd > 0


@given(usage=usages)
def test_a_batch_costs_half_of_the_token_columns(usage: dict[str, Any]) -> None:
    found = price(MODEL, usage, batch=True, at=AT)
    assert found is not None
    assert found.usd == pytest.approx(found.live_usd / 2, abs=1e-10)
    assert found.live_usd == usd(usage)


@given(first=usages, second=usages, batch=st.booleans())
def test_two_calls_cost_what_their_sum_costs(first: dict[str, Any], second: dict[str, Any], batch: bool) -> None:
    both = {key: first[key] + second[key] for key in first if key != "cache_creation"}
    both["cache_creation"] = {
        key: first["cache_creation"][key] + second["cache_creation"][key] for key in first["cache_creation"]
    }
    one, two, together = (usd(usage, batch=batch) for usage in (first, second, both))
    assert one is not None
    assert two is not None
    assert together == pytest.approx(one + two, abs=1e-9)


@given(usage=usages, more=st.integers(1, 1000), batch=st.booleans())
def test_more_tokens_never_cost_less(usage: dict[str, Any], more: int, batch: bool) -> None:
    for column in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
        before, after = usd(usage, batch=batch), usd({**usage, column: usage[column] + more}, batch=batch)
        assert before is not None
        assert after is not None
        assert after > before


strange = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
KEYS = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "inference_geo"]
nested = {
    "cache_creation": st.dictionaries(st.sampled_from(["ephemeral_5m_input_tokens", "x"]), strange) | strange,
    "server_tool_use": st.dictionaries(st.just("web_search_requests"), strange) | strange,
    "speed": strange,
}


@example(usage={"input_tokens": 0, "output_tokens": 1e23}, batch=True)
@given(usage=st.fixed_dictionaries({}, optional={**dict.fromkeys(KEYS, strange), **nested}), batch=st.booleans())
def test_no_usage_is_too_strange_for_a_price_or_none(usage: dict[str, Any], batch: bool) -> None:
    found = price(MODEL, usage, batch=batch, at=AT)
    assert found is None or found.live_usd >= found.usd >= 0


def test_the_price_table_is_loaded_only_when_a_price_is_asked_for() -> None:
    code = "import sys, gremlins.records.prices; print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
