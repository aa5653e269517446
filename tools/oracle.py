"""LiteLLM as an oracle: random usages of every chat model of its price map, priced by `Usage.cost` and by `litellm.completion_cost`.

    python tools/oracle.py [N] [--seed S] [--models PATTERN]

The rows have no captured parts, so `cost` is computed from their tokens alone; LiteLLM gets the reply that would have been
logged as that row, with usage objects as its own transformations build them. It is always told the provider, since looking
one up may start a login or ask a server; providers that do so even then are in `left_out`, with what else cannot be compared.

Where the two differ on purpose, nothing is asked: `not_asked` says of how many models. Nor are pages that Groq opens, and a
count of 0 searches of a provider whose mere presence LiteLLM bills. Exits with 1 if less than 99.9 % agree or a difference is
unexplained.
"""
import argparse, json, os, random, re, sys, time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, partial
from importlib.metadata import version
from types import SimpleNamespace as NS

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True')
import litellm
from litellm import ModelResponse, completion_cost
from litellm._internal_context import pinned_billing_time
from litellm.llms.xai.cost_calculator import apply_server_side_tool_usage_details_to_usage as xai_tools
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import (CacheCreationTokenDetails, CompletionTokensDetailsWrapper, PromptTokensDetailsWrapper,
    ServerToolUse, Usage as Reported)
from llm_usage import Usage
from llm_usage.rates import price_map

litellm.suppress_debug_info = True
tol,enough = 1e-9, .999 # dollars by which costs may differ, and the part of them that has to agree


# Which models

modes = 'chat', 'responses', 'completion'
sold  = {'bedrock_converse':'bedrock'} # the provider of a row that LiteLLM calls otherwise

def provider_of(row):
    "The provider that LiteLLM reports for calls to the model of `row`"
    p = row.get('litellm_provider') or ''
    return 'vertex_ai' if p.startswith('vertex_ai-') else sold.get(p, p)

paid = 'input_cost_per_token', 'tiered_pricing', 'cost_per_second'

left_out = { # why a chat model cannot be compared               which they are
    'LiteLLM starts a login':                           lambda k,r: provider_of(r) in ('github_copilot','chatgpt'),
    'LiteLLM asks a server':                            lambda k,r: provider_of(r) in ('ollama','huggingface'),
    'a size class, which LiteLLM classes again':        lambda k,r: k.startswith('together-ai-'),
    'a doubled prefix, which LiteLLM collapses':        lambda k,r: k.startswith('perplexity/perplexity/'),
    'no price for input, which LiteLLM counts as free': lambda k,r: all(r.get(o) is None for o in paid)}

def why_out(k, r):
    "Why the model of row `r` cannot be compared, or None"
    return next((why for why,f in left_out.items() if f(k,r)), None)

def chat(pattern='', has=''):
    "The chat models of the price map whose keys match `pattern`, and that have a price whose name matches `has`"
    fits = lambda k,r: r.get('mode') in modes and re.search(pattern, k) and any(re.search(has, o) for o in r)
    return {k:r for k,r in price_map().items() if fits(k,r)}

def models(pattern='', has=''):
    "Those that can be compared, as {(model, provider): key}"
    names = {k:(k.removeprefix(f'{provider_of(r)}/'), provider_of(r)) for k,r in chat(pattern, has).items() if not why_out(k,r)}
    return {names[k]:k for k in sorted(names, key=lambda k: k!=names[k][0])} # of two keys, the one with its provider wins


# What is used: a table of random choices each

sizes  = [32, 100, 128, 200, 256, 272, 512] # thousands of tokens at which a price may change
inp    = dict(read=.35, write=.2, write_1h=.15, audio_in=.1, image_in=.1, video_in=.05)
out    = dict(reasoning=.35, audio_out=.08, image_out=.08, video_out=.04)
tiers  = dict(usage    = [None]*6 + ['standard', 'priority'],
              traffic  = [None]*6 + ['default', 'priority', 'flex'],
              response = [None]*6 + ['default', 'standard', 'auto', 'flex', 'priority', 'fast', 'balanced', 'ultrafast', 'scale'])
extras = dict(geo=['us','us','global'], speed=['fast','standard'], residency=['us','eu'], location=['us-east5','europe-west1','global'])
week   = datetime(2026, 6, 1, tzinfo=timezone.utc).timestamp()

@cache
def edges(key):
    "Tokens at which the price of the model `key` changes"
    row = price_map()[key]
    above = {int(m[1]) for k in row if (m := re.search(r'_above_(\d+)k_tokens', k))}
    return sorted({o*1000 for o in above} | {int(e) for t in row.get('tiered_pricing') or [] for e in t.get('range',[]) if e}) or [o*1000 for o in sizes]

def deal(rng, n, odds):
    "`n` tokens dealt to some of the kinds in `odds`; what is left is text"
    cuts = sorted(rng.randint(0,n) for _ in odds)
    return {k:b-a for (k,p),a,b in zip(odds.items(), [0,*cuts], cuts) if b>a and rng.random()<p}

def prompt(rng, key):
    "Tokens of a prompt: any number, or next to a threshold or exactly on it"
    return rng.choice([rng.randint(1,4000), int(10**rng.uniform(0,6.1)), rng.choice(edges(key)) + rng.choice([-1,0,1])])

def pick(rng, p, xs): return rng.choice(xs) if rng.random()<p else None


# How a provider says it

searches = { # 'provider/model' that begins so -> how it reports searches, the counts it may report
    r'anthropic/|vertex_ai/.*claude|groq/':                    ('block',    (0,1,3)),
    r'gemini/|vertex_ai/|perplexity/':                        ('details',  (0,1,3)),
    r'xai/':                                                  ('calls',    (0,1,3)),
    r'(openai|azure)/':                                       ('citation', (0,1)),
    r'azure_ai/.*claude':                                     ('block',    (None,1,3)),
    r'':                                                      ('block',    (None,1))} # whose replies carry no count

def sells_search(row):
    "Is there a price for a search, in the map or as LiteLLM's default?"
    google = provider_of(row) in ('gemini','vertex_ai') and 'anthropic' not in row['litellm_provider'] # Claude on Vertex has no default
    return any('search' in k and 'cost' in k for k in row) or google or provider_of(row)=='xai'

def dialect(model, provider, key):
    "How a reply of `model` reports searches and its service tier, and which extras it may have"
    name   = f'{provider}/{model}'
    claude = provider=='anthropic' or 'claude' in model
    how,ns = next(v for k,v in searches.items() if re.match(k, name))
    if price_map()[key]['mode']=='responses' and how=='citation': how,ns = 'items',(0,1,3)
    if not sells_search(price_map()[key]): ns = (None,)
    tier   = 'usage' if claude else 'traffic' if provider in ('gemini','vertex_ai') else 'response'
    some   = ['geo','speed']*claude + ['residency']*(provider=='openai') + ['location']*(provider=='vertex_ai')
    tools  = dict(openai=('file_searches',[1]), azure=('code_sessions',[1,2,5])).get(provider) if how=='items' else None
    return NS(how=how, ns=ns, tier=tier, extras=some, maps=tier=='traffic', citation=provider=='perplexity', tools=tools)

not_asked = { # what is not asked                                           of models with which dialect
    'searches: no price in the map, which LiteLLM counts as free': lambda d: d.ns==(None,),
    'more than one search: a reply carries no count of them':      lambda d: d.ns==(None,1),
    'two tools in one reply: LiteLLM bills one of them':           lambda d: d.tools is not None,
    "a tier of 'batch' in a reply: LiteLLM bills it in full":      lambda d: d.tier=='usage'}

def row(rng, model, provider, key):
    "A random usage of `model`, as a row of this package"
    d,n,o = dialect(model,provider,key), prompt(rng,key), rng.choice([rng.randint(1,3000), rng.randint(1,200_000)])
    i,c   = deal(rng,n,inp), deal(rng,o,out)
    heard = rng.randint(0, i['read']) if 'read' in i and rng.random()<.5 else 0
    found = pick(rng,.3,d.ns)
    more  = {k:pick(rng,.3,extras[k]) for k in d.extras} | dict(cached_audio=heard, maps=d.maps and pick(rng,.1,[1,3]), citations=d.citation and pick(rng,.3,[40,900]))
    more |= {k:v for k,v in (i|c).items() if k.endswith(('_in','_out'))}
    if heard: more['audio_in'] = more.get('audio_in',0) + heard
    if d.tools and not found: more[d.tools[0]] = pick(rng,.5,d.tools[1])
    w5,w1 = i.get('write',0), i.get('write_1h',0)
    return Usage(model=model, provider=provider, timestamp=week + rng.randrange(7*24*12)*300, latency=rng.choice([.5,2.]),
        prompt_tokens=n, completion_tokens=o, total_tokens=n+o, usage_source='reported',
        cache_read_tokens=i.get('read',0), cache_creation_tokens=w5+w1, cache_creation_1h_tokens=w1, reasoning_tokens=c.get('reasoning',0),
        web_search_requests=found, service_tier=rng.choice(tiers[d.tier]), details=json.dumps({k:v for k,v in more.items() if v}))


# The reply it was read from

def reported(u, x, d):
    "LiteLLM's usage object for the row `u` with details `x`, in the dialect `d`"
    w,w1,get = u.cache_creation_tokens, u.cache_creation_1h_tokens, x.get
    heard = get('cached_audio',0)
    text  = u.prompt_tokens - u.cache_read_tokens - w - (get('audio_in',0)-heard) - get('image_in',0) - get('video_in',0)
    inp = PromptTokensDetailsWrapper(cached_tokens=u.cache_read_tokens, cache_creation_tokens=w,
        cache_creation_token_details=CacheCreationTokenDetails(ephemeral_5m_input_tokens=w-w1, ephemeral_1h_input_tokens=w1) if w1 else None,
        cached_tokens_details=dict(audio_tokens=heard) if heard else None,
        text_tokens=text if d.tier=='traffic' else None, google_maps_grounding_requests=get('maps'),
        audio_tokens=get('audio_in'), image_tokens=get('image_in'), video_tokens=get('video_in'))
    out = CompletionTokensDetailsWrapper(reasoning_tokens=u.reasoning_tokens, audio_tokens=get('audio_out'), image_tokens=get('image_out'), video_tokens=get('video_out'))
    res = Reported(prompt_tokens=u.prompt_tokens, completion_tokens=u.completion_tokens, total_tokens=u.total_tokens, prompt_tokens_details=inp, completion_tokens_details=out)
    named = dict(inference_geo=get('geo'), speed=get('speed'), citation_tokens=get('citations'), service_tier=u.service_tier if d.tier=='usage' else None)
    for k,v in named.items():
        if v: setattr(res, k, v)
    return res

def say_block(us, res, n):    us.server_tool_use = ServerToolUse(web_search_requests=n)
def say_details(us, res, n):  us.prompt_tokens_details.web_search_requests = n
def say_calls(us, res, n):    xai_tools(us, dict(web_search_calls=n))
def say_citation(us, res, n): res.choices[0].message.annotations = [dict(type='url_citation')]*n
def say_items(us, res, n):    res.output = items(web_search_call=n)

def items(**ns): return [dict(type=k, id=f'{k}{i}', status='completed') for k,n in ns.items() for i in range(n)]

traffic = {'priority':'ON_DEMAND_PRIORITY', 'flex':'FLEX', 'default':'ON_DEMAND'}

def reply(u, d, us, key):
    "The reply of LiteLLM that would be logged as the row `u`"
    res = ResponsesAPIResponse(id='r', created_at=0, output=[], model=key) if d.how=='items' else ModelResponse(model=key)
    res.usage = us
    if u.web_search_requests is not None: globals()[f'say_{d.how}'](us, res, u.web_search_requests)
    if not u.web_search_requests and d.tools: res.output = items(file_search_call=json.loads(u.details).get('file_searches', 0))
    if u.service_tier and d.tier=='response': res.service_tier = u.service_tier
    if u.service_tier and d.tier=='traffic':  res._hidden_params = dict(provider_specific_fields=dict(traffic_type=traffic[u.service_tier]))
    return res

def theirs(u, x, res, key, log=None):
    "US dollars for the reply `res` according to LiteLLM, which tells `log` of their parts; None if it has no price"
    at = datetime.fromtimestamp(u.timestamp, timezone.utc)
    asked = dict(file_search=dict(type='file_search') if 'file_searches' in x else None, code_interpreter_sessions=x.get('code_sessions'))
    try:
        with pinned_billing_time(at): return completion_cost(res, model=key, custom_llm_provider=u.provider, total_time=u.latency*1000,
            data_residency=x.get('residency'), vertex_location=x.get('location'), standard_built_in_tools_params=asked, litellm_logging_obj=log)
    except Exception: return

class Log:
    "What LiteLLM tells of the parts of a cost"
    litellm_params = optional_params = model_call_details = {}
    def set_cost_breakdown(self, **kw): self.told = kw
    def __getattr__(self, k): return None

def captured(u, price):
    "The row `u` as LiteLLM's event would give it: with the cost that `price` comes to, and its parts"
    log  = Log()
    cost = price(log=log)
    inp,out,web,read,write = (log.told.get(k) or 0. for k in 'input_cost output_cost cost_for_built_in_tools_cost_usd_dollar cache_read_cost cache_creation_cost'.split())
    if read+write > inp+1e-12: read = write = 0. # shown, and not billed
    if inp<0: return replace(u, response_cost=cost, cost_source='litellm') # parts that cannot be
    parts = dict(inp_usd=max(0., inp-read-write), cache_read_usd=read, cache_write_usd=write, out_usd=out, web_usd=web)
    return replace(u, response_cost=cost, cost_source='litellm', **parts, other_usd=cost-sum(parts.values()))

def sample(n_models=None, n_usages=60, seed=1, pattern='', has=''):
    "(model, provider, a row, a function for LiteLLM's cost of it) for random usages of some models, or of all"
    ks = models(pattern, has)
    some = ks if n_models is None else random.Random(seed).sample(sorted(ks), min(n_models, len(ks)))
    for m,p in some:
        rng,d = random.Random(f'{seed} {ks[m,p]}'), dialect(m, p, ks[m,p])
        for _ in range(n_usages):
            u = row(rng, m, p, ks[m,p])
            x = json.loads(u.details)
            yield m, p, u, partial(theirs, u, x, reply(u, d, reported(u, x, d), ks[m,p]), ks[m,p])


# Where they differ, and why

@dataclass
class Case:
    "One usage priced twice"
    model:str; provider:str; usage:Usage; ours:float; theirs:float; row:dict
    @property
    def diff(self): return abs((self.ours or 0) - (self.theirs or 0))
    @property
    def agrees(self): return self.diff<=tol if None not in (self.ours,self.theirs) else self.ours is self.theirs

def audio_tier(c):
    "Does `c` have audio, and its model a price for audio at a service tier?"
    return '"audio_in"' in c.usage.details and any(k.startswith('input_cost_per_audio_token_') for k in c.row)

def long_hour(c):
    "Does `c` have hour-long writes at a service tier, of a model whose price for them depends on the prompt's length?"
    return c.usage.service_tier and c.usage.cache_creation_1h_tokens and any('_above_1hr_above_' in k for k in c.row)

def several(c):
    "Does `c` have several searches that LiteLLM sees as one?"
    return c.provider=='azure_ai' and (c.usage.web_search_requests or 0)>1

reasons = { # why a case disagrees                                          of which versions   how it is recognised
    'one search of Claude on Azure is billed, however many there were':      ((1,105),(1,105),    several),
    'audio at a service tier is billed without the tier\'s price for it':    ((1,105),(1,105),    audio_tier),
    'hour-long writes at a tier without a price are those of a short prompt':((1,109),(1,110),    long_hour)}

def reason(c):
    "Why the case `c` disagrees, as far as that is known of the LiteLLM that is installed"
    now = tuple(map(int, version('litellm').split('.')[:2]))
    return next((k for k,(first,last,f) in reasons.items() if first<=now<=last and f(c)), 'unexplained')

def compare(cases):
    "The `cases` of a sample, priced by both"
    return [Case(m, p, u, u.cost, f(), price_map()[f.args[-1]]) for m,p,u,f in cases]

def agreement(cs):
    "The part of the cases `cs` that agrees"
    return sum(c.agrees for c in cs)/len(cs)

def disagreeing(cs):
    "{reason: {(model, provider): its cases}} of those that disagree"
    res = defaultdict(lambda: defaultdict(list))
    for c in cs:
        if not c.agrees: res[reason(c)][c.model,c.provider].append(c)
    return res


# The report

def micros(f, xs):
    "Microseconds that `f` takes for one of `xs`"
    t = time.perf_counter()
    for x in xs: f(x)
    return (time.perf_counter()-t)/len(xs)*1e6

def timing(seed, n=400, runs=3):
    "Microseconds of a cost, the least of a few runs: ours with rates cached, and LiteLLM's"
    xs   = list(sample(n, 3, seed))
    ours = min(micros(lambda u: u.cost, [replace(u) for *_,u,_ in xs]) for _ in range(runs+1))
    return ours, min(micros(lambda o: o[-1](), xs) for _ in range(runs))

def gap(c): return c.diff if None not in (c.ours,c.theirs) else 0

def show_models(ms, most=12):
    "Print the models `ms` of one reason with a case of each, as far as there is room"
    for (m,p),cs in sorted(ms.items(), key=lambda o: -len(o[1]))[:most]:
        print(f'{len(cs):12,} {p} {m}: {cs[0].ours} here, {cs[0].theirs} by LiteLLM')
    if len(ms)>most: print(f'{"":12} and {len(ms)-most:,} more models')

def show(cs):
    "Print how far the cases `cs` agree, and who does not"
    worst = max(cs, key=gap)
    print(f'{agreement(cs):.4%} of {len(cs):,} usages agree within {tol:g} dollars; the worst difference is {gap(worst):.3g}, of {worst.provider} {worst.model}')
    print(f'unpriced here alone: {sum(c.ours is None and c.theirs is not None for c in cs):,}; by LiteLLM alone: {sum(c.theirs is None and c.ours is not None for c in cs):,}')
    for why,ms in disagreeing(cs).items():
        print(f'{sum(map(len,ms.values())):8,} usages of {len(ms):,} models: {why}')
        show_models(ms)

def main(n, seed, pattern):
    "Compare, print, and return the exit code"
    ks,left = chat(pattern), Counter(why for k,r in chat(pattern).items() if (why := why_out(k,r)))
    print(f'LiteLLM {version("litellm")}: {len(ks):,} keys, {sum(left.values()):,} of them left out:')
    for why,k in left.items(): print(f'{k:8,} {why}')
    print(f'{len(models(pattern)):,} models by name and provider, {n} usages each, seed {seed}')
    ds = [dialect(m, p, k) for (m,p),k in models(pattern).items()]
    for why,f in not_asked.items(): print(f'{sum(map(f, ds)):8,} not asked for {why}')
    cs = compare(sample(None, n, seed, pattern))
    show(cs)
    us,them = timing(seed)
    print(f'{us:.1f} µs for a cost here, {them:.1f} µs by litellm.completion_cost: {them/us:.1f} times as much')
    return int(agreement(cs)<enough or 'unexplained' in disagreeing(cs))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description='Compare costs with LiteLLM over random usages of every chat model')
    ap.add_argument('n', nargs='?', type=int, default=60, help='usages of each model')
    ap.add_argument('--seed', type=int, default=1)
    ap.add_argument('--models', default='', help='regular expression, found in the keys of the price map')
    a = ap.parse_args()
    sys.exit(main(a.n, a.seed, a.models))
