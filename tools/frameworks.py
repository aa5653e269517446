"""What each framework's calls become: `python tools/frameworks.py [NAME ...]` tries them against the stand-ins, and prints the table of nbs/explanations/frameworks.ipynb.

Each entry of `tries` has its packages, the door through which its calls become rows, and the one line that opens it, which is
run as it is shown. No package here is one of this project's: install what you want to try; the others are left out.
"""
import os, sys, tempfile
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from standins import serve
import llm_usage

instrument = "instrument('usage.db')"
logger     = "UsageLogger('usage.db').install()"
spans      = "UsageSpanProcessor('usage.db')"
handler    = "UsageHandler('usage.db')"

tries = { # the packages, the door, and a call
'LlamaIndex':     (['llama-index-llms-openai'], instrument, '''
from llama_index.llms.openai import OpenAI
OpenAI(model='gpt-4o-mini').complete('What is the capital of Peru?')'''),
'pydantic-ai':    (['pydantic-ai-slim'], instrument, '''
from pydantic_ai import Agent
Agent('anthropic:claude-sonnet-5-5').run_sync('When does the archive close?')'''),
'pydantic-ai, by spans': (['pydantic-ai-slim', 'opentelemetry-sdk'], spans, '''
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
provider.add_span_processor(handler)
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
Agent('anthropic:claude-sonnet-5-5').run_sync('When does the archive close?')'''),
'OpenAI Agents':  (['openai-agents'], instrument, '''
from agents import Agent, Runner
Runner.run_sync(Agent(name='clerk', model='gpt-5.4-mini'), 'How many seconds are in a week?')'''),
'instructor':     (['instructor'], instrument, '''
import instructor, openai, pydantic
class Sum(pydantic.BaseModel): a:int; b:int
instructor.from_openai(openai.OpenAI()).chat.completions.create(model='gpt-5.4-mini', response_model=Sum, messages=[dict(role='user', content='Add 17 and 25 with your tool.')])'''),
'DSPy':           (['dspy'], logger, '''
import dspy
dspy.LM('openai/gpt-5.4-mini', cache=False)('Name three primes.')'''),
'smolagents':     (['smolagents'], logger, '''
from smolagents import LiteLLMModel, ChatMessage
LiteLLMModel('anthropic/claude-sonnet-5-5').generate([ChatMessage(role='user', content='When does the archive close?')])'''),
'CrewAI':         (['crewai'], instrument, '''
from crewai import LLM
LLM(model='openai/gpt-5.4-mini').call('Name three primes.')'''),
'LangChain':      (['langchain-core', 'langchain-openai'], handler, '''
from langchain_openai import ChatOpenAI
ChatOpenAI(model='gpt-5.4-mini').invoke('Summarise the minutes.', dict(callbacks=[handler]))'''),
'LangGraph':      (['langgraph'], handler, '''
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
create_react_agent(ChatOpenAI(model='gpt-5.4-mini'), [], name='clerk').invoke(dict(messages='Name three primes.'), dict(callbacks=[handler]))'''),
}

def opened(door, ledger):
    "What makes the rows of `ledger`, by the line of the `door`"
    name = door.partition('(')[0]
    return eval(door.replace("'usage.db'", 'ledger'), {name: getattr(llm_usage, name)}, dict(ledger=ledger))

def tried(url, packages, door, call):
    "The rows of a call that comes in by `door`"
    os.environ |= dict(OPENAI_BASE_URL=f'{url}/v1', OPENAI_API_BASE=f'{url}/v1', ANTHROPIC_BASE_URL=url, ANTHROPIC_API_BASE=url)
    with tempfile.TemporaryDirectory() as d, redirect_stdout(sys.stderr):
        ledger = llm_usage.Ledger(Path(d)/'usage.db')
        made = opened(door, ledger)
        try: exec(call, dict(handler=made)); return ledger.rows()
        finally:
            llm_usage.uninstrument()
            if door==logger: made.uninstall()
            ledger.close()

def row(u): return repr(u).removeprefix('Usage(')[:-1] + f' · `{u.step}`'*bool(u.step)

def versions(packages):
    "The packages with their versions; None if one is not installed"
    try: return ', '.join(f'{o} {version(o)}' for o in packages)
    except PackageNotFoundError: return

quiet = dict(LITELLM_LOCAL_MODEL_COST_MAP='True', OPENAI_AGENTS_DISABLE_TRACING='1', CREWAI_DISABLE_TELEMETRY='true', CREWAI_TRACING_ENABLED='false')

def main(names):
    os.environ |= quiet | dict(OPENAI_API_KEY='not-a-key', ANTHROPIC_API_KEY='not-a-key')
    print('| tried | door | its row |\n|---|---|---|')
    with serve() as url:
        for name in names or tries:
            if not (vs := versions(tries[name][0])): continue
            try: said = '<br>'.join(map(row, tried(url, *tries[name]))) or 'none'
            except Exception as e: said = f'{type(e).__name__}: {e}'[:200]
            print(f'| {name}: {vs} | `{tries[name][1]}` | {said} |')

if __name__=='__main__': main(sys.argv[1:])
