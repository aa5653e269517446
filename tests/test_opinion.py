"""Two price tables, some ninety well-known models: what differs must be known, with a reason that still holds.

In a plain test, since the table of models would be no reading for a page."""
from datetime import datetime, timezone
from fnmatch import fnmatchcase
import pytest
from llm_usage import Usage, model_prices, price, second_opinion
from llm_usage.opinion import known

at = datetime(2026,11,20,12,tzinfo=timezone.utc).timestamp() # start dates and off-peak hours count

well_known = {k:v.split() for k,v in dict(
    anthropic    = '''claude-haiku-5-5 claude-sonnet-5-5 claude-opus-5-5 claude-fable-5-1 claude-opus-5 claude-sonnet-5
                      claude-opus-4-8 claude-sonnet-4-6 claude-haiku-4-5''',
    openai       = '''gpt-6.1-sol gpt-6-sol gpt-6-luna gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna gpt-5.5 gpt-5.4 gpt-5.4-mini
                      gpt-5.3-codex gpt-5.1 gpt-5-mini gpt-4.1 gpt-4.1-mini gpt-4o gpt-4o-mini
                      o3 gpt-4o-search-preview gpt-5-search-api''',
    gemini       = '''gemini-3.8-flash gemini-3.5-flash gemini-3.5-flash-lite gemini-3.1-pro-preview gemini-3.1-flash-lite
                      gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite''',
    vertex_ai    = 'gemini-3.8-flash gemini-3.5-flash gemini-2.5-pro claude-sonnet-5-5 claude-haiku-5-5 claude-opus-5-5',
    bedrock      = '''global.anthropic.claude-sonnet-5-5 us.anthropic.claude-sonnet-5-5 anthropic.claude-sonnet-5-5
                      anthropic.claude-opus-4-8 amazon.nova-pro-v1:0 amazon.nova-lite-v1:0 us.openai.gpt-5.6-luna''',
    azure        = 'gpt-6-sol gpt-5.6-luna gpt-5.4-mini gpt-5.1 gpt-4.1 gpt-4o',
    azure_ai     = 'claude-sonnet-5-5',
    xai          = 'grok-4.7 grok-4.5 grok-4.3 grok-code-fast-1',
    mistral      = 'mistral-large-latest mistral-large-2512 mistral-large-4 mistral-medium-3-5 mistral-small-latest codestral-latest',
    deepseek     = 'deepseek-flash deepseek-v4-pro deepseek-v3.2 deepseek-chat deepseek-reasoner',
    groq         = 'openai/gpt-oss-120b openai/gpt-oss-20b qwen/qwen3.8-27b',
    cerebras     = 'gpt-oss-120b',
    moonshot     = 'kimi-k3 kimi-k2.6',
    zai          = 'glm-5.3 glm-5.2',
    minimax      = 'MiniMax-M3',
    cohere_chat  = 'command-a-03-2025',
    fireworks_ai = '''accounts/fireworks/models/deepseek-v4p1-flash accounts/fireworks/models/kimi-k3 accounts/fireworks/models/glm-5p3''',
    together_ai  = 'openai/gpt-oss-120b Qwen/Qwen3.8-Flash').items()}

searchers = 'anthropic openai gemini vertex_ai azure azure_ai'.split() # who sell a search of their own

def typical(provider, model, **kw):
    "10,000 tokens in, 2,000 of them cached and 1,000 written to a cache that charges for it, 1,000 out"
    p  = price(model, provider, at) or {}
    w  = 1_000*bool(p.get('cache_creation_input_token_cost'))
    w1 =   400*bool(p.get('cache_creation_input_token_cost_above_1hr'))
    return Usage(model=model, provider=provider, timestamp=at, prompt_tokens=10_000, cache_read_tokens=2_000, cache_creation_tokens=w,
                 cache_creation_1h_tokens=w1, completion_tokens=1_000, usage_source='reported', **kw)

def usages():
    "Every well-known model with its typical usage, and with two searches where its provider sells them"
    return [typical(p, m, web_search_requests=n) for p,ms in well_known.items() for m in ms for n in ((0,2) if p in searchers else (0,))]

@pytest.fixture(scope='module')
def found(): return second_opinion(usages(), tol=1e-6)

def test_both_engines_know_the_models():
    "Nine in ten at least are priced by both, or this would be a test of nothing"
    us = [u for u in usages() if not u.web_search_requests]
    assert sum(o.diff is None for o in second_opinion(us, tol=-1)) <= len(us)/10 and len(us) > 80

def test_a_new_difference_is_explained_first(found):
    assert not [(o.usage.provider, o.usage.model, o.usage.web_search_requests, o.ours, o.theirs) for o in found if not o.reason]

def test_no_reason_outlives_its_difference(found):
    "Only those that name a version of LiteLLM may have nothing to explain in another"
    about = lambda k,u: u.provider==k[0] and fnmatchcase(u.model, k[1]) and getattr(u, k[2])
    stale = [k for k in known if not any(about(k, o.usage) for o in found)]
    assert all('LiteLLM 1.10' in known[k] for k in stale), stale

@pytest.mark.parametrize('rate', ['input','cache_read','cache_write','cache_write_1h','output'])
def test_a_wrong_price_is_found(rate, monkeypatch):
    right = dict(input=2., cache_read=.1, cache_write=2.5, cache_write_1h=4., output=10.)
    rows  = [typical('anthropic', m) for m in ('claude-sonnet-5-5','claude-haiku-5-5')]
    monkeypatch.setitem(model_prices, 'claude-sonnet-5-5', right)
    assert not second_opinion(rows)
    monkeypatch.setitem(model_prices, 'claude-sonnet-5-5', right | {rate:10*right[rate]})
    assert [o.usage.model for o in second_opinion(rows)]==['claude-sonnet-5-5']

def test_a_price_of_yours_needs_a_reason_of_its_own(monkeypatch):
    row = typical('mistral', 'mistral-large-latest')
    assert second_opinion([row])[0].reason
    monkeypatch.setitem(model_prices, 'mistral/mistral-large-latest', dict(input=5, output=15))
    assert not second_opinion([row])[0].reason
