"""One call, one row, one bill: every LLM call as a priced row in a ledger that loses none

What did this cost, for whom, and why? `llm_usage` logs every call that you make through [LiteLLM](https://github.com/BerriAI/litellm) or a vendor's own client, sync or async, streamed or not, with caches, tools and web search, as one row of a SQLite file, with its tokens and its cost. It answers that question from the rows.

- **A number is never silently wrong.** A call without a price is unpriced, not $0, and a total says how many calls it covers. The parts of a cost sum to the whole.
- **The logger never breaks a call, and never fails silently.** Once logged, a call survives a crash. If the database cannot take a row now, the row waits in a file beside it, and a warning says so.
- **No prompts, replies or keys are stored.**

Modules:

- `llm_usage.agents`: What Claude Code, Codex, Gemini CLI and OpenCode have logged
- `llm_usage.alerts`: Be told when a call, a session or a day costs too much, and stop it
- `llm_usage.audr`: Rows as AUDR, for billing systems that read it
- `llm_usage.bills`: Usage and cost reports of providers, in the ledger's words
- `llm_usage.block`: A block of code whose calls are for somebody, or counted
- `llm_usage.budget_rules`: Budgets that a file of settings names, and what is left of each
- `llm_usage.budgets`: A limit that holds before the money is gone
- `llm_usage.caching`: What prompt caches saved, what they cost, and for how long to keep them
- `llm_usage.callback`: A callback that stays in LiteLLM's lists
- `llm_usage.calls`: A call under way, and how it may end without a word
- `llm_usage.cassette`: Was this reply recorded before?
- `llm_usage.charges`: What LiteLLM says that a call cost, and when it is one
- `llm_usage.charts`: Pictures of figures, as SVG
- `llm_usage.cli`: The ledger in a terminal
- `llm_usage.clickhouse`: A ledger for many hosts and very many rows, on one server or a cluster.
- `llm_usage.clients`: Every call of the official clients as a row, without a change to the program
- `llm_usage.cloudevents`: Calls as usage events, for OpenMeter
- `llm_usage.columns`: Which values a row may have
- `llm_usage.connections`: What a ledger sends to PostgreSQL or ClickHouse, and where
- `llm_usage.copies`: A ledger moves to a server, or from one, and every sum is compared on the way.
- `llm_usage.core`: One call to a language model, as one row
- `llm_usage.cost`: What a call costs, in parts that sum
- `llm_usage.dashboard`: The ledger on a page
- `llm_usage.dates`: Times, periods, and the days of a time zone
- `llm_usage.dialects`: The statements of this package are SQLite's. Two tables turn them into PostgreSQL's and ClickHouse's.
- `llm_usage.doors`: What stands before an app that serves a ledger
- `llm_usage.event`: What LiteLLM says of a call, as one row
- `llm_usage.exports`: Rows as JSON lines, CSV or Parquet
- `llm_usage.files`: Calls in files of JSON lines, where nobody wants a database
- `llm_usage.focus`: A month's calls as FinOps tools read charges
- `llm_usage.imports`: Calls that other tools have logged, as rows
- `llm_usage.journal`: What a process has not stored yet, in a file that outlives it
- `llm_usage.keys`: Who may ask a ledger over HTTP, and for what
- `llm_usage.lago`: Calls that become an invoice
- `llm_usage.langchain`: A callback that makes a row of each call of a chain or an agent
- `llm_usage.ledger`: Where rows live: one SQLite file that loses nothing
- `llm_usage.logger`: Rows that write themselves: the LiteLLM callback
- `llm_usage.logs`: What simonw/llm and LiteLLM's proxy have logged
- `llm_usage.loops`: A program that asks the same thing again and again, found while it does
- `llm_usage.maintenance`: Copies of a ledger, one ledger of many, and less of one
- `llm_usage.meters`: What a bill counts, as exact decimals
- `llm_usage.notebook`: What each cell cost, said below it
- `llm_usage.opinion`: What genai-prices says the same calls cost
- `llm_usage.options`: The words of a command, read before anything heavy is imported
- `llm_usage.otlp`: Rows of spans that arrive in batches
- `llm_usage.outbox`: What was sent to another system, what waits, and what was refused
- `llm_usage.page`: What the pages are made of
- `llm_usage.plot`: Pictures of a ledger
- `llm_usage.postgres`: A ledger that a handful of hosts write to, budgets included.
- `llm_usage.proxy`: Each call of a team's LiteLLM proxy as a row
- `llm_usage.rate_limits`: A provider's limit, kept before the provider has to say so
- `llm_usage.rates`: What a token costs: price rows, and the rate of each kind of token
- `llm_usage.reconcile`: A provider's bill beside the ledger, and a reason for each difference
- `llm_usage.recorder`: A call that LiteLLM does not make, from its beginning to its row
- `llm_usage.recovery`: What processes that are gone left beside a ledger
- `llm_usage.refusal`: LiteLLM asks before each call whether it may be sent
- `llm_usage.remote`: `Ledger('postgresql+psycopg://…')` and `Ledger('clickhousedb://…')` behave as `Ledger('usage.db')`.
- `llm_usage.replay`: Real calls of every kind, without a key or a network
- `llm_usage.replies`: A reply is read before its caller has it
- `llm_usage.report`: Questions to ask a ledger, answered as DataFrames
- `llm_usage.reprice`: What rows would have cost: re-pricing, models without a price, what-if, resale
- `llm_usage.request`: The most that a call can cost, before it is sent
- `llm_usage.restores`: Rows of JSON lines, CSV and Parquet, once each
- `llm_usage.rollup`: Rows added up once, and never again
- `llm_usage.settings`: A ledger, a time zone and prices, said once
- `llm_usage.spans`: Rows of the spans that OpenTelemetry records
- `llm_usage.spend_api`: LiteLLM's answers about spend, from a ledger
- `llm_usage.spent`: What a block of code spent, and a test that it does not spend more
- `llm_usage.store`: One SQLite file for many threads and processes
- `llm_usage.streams`: What came over the wire of a stream, whole or not
- `llm_usage.tables`: Lines that fit a terminal
- `llm_usage.telemetry`: Rows as spans and metrics of OpenTelemetry
- `llm_usage.tracing`: Any call to a model as a row, whoever makes it
- `llm_usage.trend`: What drove the change, and where the month will end
- `llm_usage.view`: One way to ask a ledger, for all that somebody may see
- `llm_usage.web`: A ledger over HTTP: LiteLLM's spend routes, metrics and spans
- `llm_usage.webhook`: A message to a server, in nobody's way
- `llm_usage.wire`: What came over the wire of a stream, whether LiteLLM read it or another client
- `llm_usage.words`: Helpers for what people read, without an import
- `llm_usage.wraps`: Functions of other packages that are wrapped, and put back"""

__version__ = "0.1.0"

from importlib import import_module

_where = {k:m for m,ks in dict( # names are imported when they are first used, so that `import llm_usage` stays light
    core    = 'Usage usd',
    rates   = 'model_prices price prices price_sources Price',
    cost    = 'Receipt Total',
    ledger  = 'Ledger',
    files   = 'JSONLSink',
    reprice = 'resale',
    opinion = 'second_opinion',
    replay  = 'replaying',
    alerts  = 'AlertRaised',
    budgets = 'budget BudgetExceeded',
    request = 'estimate',
    logger  = 'UsageLogger',
    recorder = 'Recorder',
    tracing = 'trace',
    clients = 'instrument uninstrument wrap',
    langchain = 'UsageHandler',
    spans   = 'UsageSpanProcessor',
    lago    = 'LagoSink',
    cloudevents = 'OpenMeterSink',
    telemetry = 'OTelSink',
    outbox  = 'Outbox Sink',
    spent   = 'measure test_cost',
    notebook = 'stamp_cost').items() for k in ks.split()}

__all__ = [*_where]

def __dir__(): return [*globals(), *__all__]

def __getattr__(nm):
    if nm not in _where: raise AttributeError(f'module {__name__!r} has no attribute {nm!r}')
    for m in ('cost','files','reprice','maintenance','copies','report','alerts','budget_rules','rate_limits','loops','caching','trend','plot','keys','exports','restores','audr','focus','imports','agents','logs','reconcile'): import_module(f'.{m}', __name__) # which patch `Usage` and `Ledger`
    return getattr(import_module(f'.{_where[nm]}', __name__), nm)

def load_ipython_extension(ip):   import_module('.notebook', __name__).load_ipython_extension(ip)
def unload_ipython_extension(ip): import_module('.notebook', __name__).unload_ipython_extension(ip)
