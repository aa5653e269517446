"The dashboard in a browser, Debian's chromium: what people do with it, and that it asks nobody but its own server"
import re, shutil, threading, time
from contextlib import closing,contextmanager
import pytest, uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from llm_usage import Ledger, Usage
from llm_usage.web import app

N = 1200 # calls: more than a page of the list shows, and more than a CSV reads at a time
now = time.time()
people = 'ada','bob','<script>alert(1)</script>'

def a_call(i, **kw):
    "Call `i`, an hour before the one after it"
    who,paid = people[i%3],None if i%40==0 else .01+i%7/100
    model = dict(provider='house', model='house-8b') if paid is None else dict(provider='anthropic', model='claude-sonnet-5-5') if i%2 else dict(provider='openai', model='gpt-5.6-terra')
    tokens = dict(prompt_tokens=900, cache_read_tokens=300, completion_tokens=90, total_tokens=990, usage_source='reported')
    return Usage(**dict(call_id=f'call-{i}', timestamp=now-3600*(N-i)/3, user_id=who, team_id='red' if who=='ada' else 'blue', tags=['=1+1','eval'],
        session_id=f's-{i//10}', agent=['planner','writer'][i%2], step=['plan','plan/write'][i%2], latency=2., status='failed' if i%50==7 else 'ok', response_cost=paid) | model | tokens | kw)

@pytest.fixture(scope='module')
def ledger(tmp_path_factory):
    with closing(Ledger(tmp_path_factory.mktemp('web')/'usage.db')) as l:
        l.insert_all(a_call(i) for i in range(N))
        yield l

@contextmanager
def served(ledger):
    "The address of a server that runs within the block"
    s = uvicorn.Server(uvicorn.Config(app(ledger), port=0, log_level='warning', timeout_graceful_shutdown=0))
    t = threading.Thread(target=s.run)
    t.start()
    while not s.started: time.sleep(.01)
    try: yield f'http://127.0.0.1:{s.servers[0].sockets[0].getsockname()[1]}'
    finally: s.should_exit = True; t.join()

@pytest.fixture(scope='module')
def url(ledger):
    with served(ledger) as u: yield u

@pytest.fixture(scope='module')
def chromium():
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox','--disable-background-networking'])
        yield b
        b.close()

@contextmanager
def signed_in(chromium, url, key, **kw):
    "A page of somebody with a key, that asks only its server, and whose console stays empty"
    c,asked,said = chromium.new_context(base_url=url, **kw),[],[]
    page = c.new_page()
    page.on('request', lambda r: asked.append(r.url)); page.on('console', lambda m: m.type in ('error','warning') and said.append(m.text)); page.on('pageerror', lambda e: said.append(str(e)))
    page.goto('/')
    page.get_by_label('Key').fill(key)
    page.get_by_role('button', name='Sign in').click()
    yield page
    c.close()
    assert asked and [o for o in asked if not o.startswith(url)]==[]
    assert said==[]

@pytest.fixture(scope='module')
def key(ledger): return ledger.add_key('admin')

@pytest.fixture
def page(chromium, url, key):
    with signed_in(chromium, url, key) as p: yield p

def billed(ledger, **kw): return f"${ledger.total(' AND '.join(f'{k}=:{k}' for k in kw), **kw).amount:,.2f}"

def test_filters_are_in_the_address(page, ledger):
    "A view can be sent to a colleague: the address has the filters, and the same address shows the same figures"
    page.locator('#f-user').select_option('bob')
    page.get_by_role('button', name='Apply').click()
    page.wait_for_url('**user=bob**')
    whole = page.locator('.more .sum')
    expect(whole).to_have_text(f"≥ {billed(ledger, user_id='bob')}")
    page.go_back()
    expect(whole).to_have_text(f"≥ {billed(ledger, origin='live')}")
    page.go_forward()
    expect(whole).to_have_text(f"≥ {billed(ledger, user_id='bob')}")
    page.goto(page.url)
    expect(whole).to_have_text(f"≥ {billed(ledger, user_id='bob')}")
    expect(page.locator('#f-user')).to_have_value('bob')

def test_links_lead_to_a_call(page):
    "From a user to a model, to its calls, to a receipt, and to the session as a tree"
    page.get_by_role('link', name='All users').click()
    line = page.get_by_role('link', name='ada', exact=True)
    line.click()
    expect(line).to_have_attribute('aria-expanded', 'true')
    assert 'open=ada' in page.url
    page.get_by_role('link', name='Calls of gpt-5.6-terra in user ada').click()
    expect(page).to_have_url(re.compile('/calls.*user=ada.*model=gpt-5.6-terra|/calls.*model=gpt-5.6-terra.*user=ada'))
    page.locator('.opens').first.click()
    expect(page.get_by_text('Receipt')).to_be_attached()
    assert 'open=' in page.url
    page.locator('td a').first.click()
    expect(page.get_by_role('heading', level=1)).to_contain_text('Session')
    expect(page.locator('.tree')).to_contain_text('write')

def test_a_call_arrives(page, ledger):
    "Without a reload, on top of the list, and only while the reader is there"
    page.goto('/calls')
    expect(page.locator('#live')).to_be_visible()
    ledger.add(a_call(N, call_id='new-1', model='claude-haiku-5-5', timestamp=time.time()))
    expect(page.locator('#tail tr').first).to_contain_text('claude-haiku-5-5')
    page.mouse.wheel(0, 2000)
    expect(page.locator('footer')).to_be_in_viewport()
    ledger.add(a_call(N, call_id='new-2', model='claude-opus-4-5', timestamp=time.time()))
    expect(page.locator('#fresh')).to_have_text('1 new call')
    expect(page.locator('#tail')).not_to_contain_text('claude-opus-4-5')
    page.locator('#fresh').click()
    expect(page.locator('#tail tr').first).to_contain_text('claude-opus-4-5')

def test_a_lost_connection_is_said(chromium, ledger, key):
    with served(ledger) as u:
        c = chromium.new_context(base_url=u)
        p = c.new_page()
        p.goto('/login')
        p.get_by_label('Key').fill(key)
        p.get_by_role('button', name='Sign in').click()
        p.goto('/calls')
        expect(p.locator('#live')).to_be_visible()
    expect(p.locator('#lost')).to_contain_text('Not live')
    c.close()

def test_a_csv_has_the_whole_table(page, ledger):
    page.goto('/calls?user=ada')
    with page.expect_download() as d: page.get_by_role('link', name='CSV of calls').click()
    head,*lines = d.value.path().read_text().splitlines()
    assert len(lines)==ledger.q("SELECT count(*) n FROM usage WHERE user_id='ada'")[0]['n'] > 50
    assert head.startswith('id,uid,') and "'=1+1" not in head

def test_without_a_script(chromium, url, key, ledger):
    "Filters are a form, and lines open by a link"
    with signed_in(chromium, url, key, java_script_enabled=False) as p:
        p.locator('#f-team').select_option('red')
        p.get_by_role('button', name='Apply').click()
        expect(p.locator('.more .sum')).to_have_text(f"≥ {billed(ledger, team_id='red')}")
        p.get_by_role('link', name='Work out what they saved').click()
        expect(p.locator('section')).to_contain_text('Prompt caches')

def test_with_a_keyboard_alone(page):
    page.goto('/')
    page.keyboard.press('Tab')
    expect(page.get_by_text('Skip to content')).to_be_focused()
    page.keyboard.press('Enter')
    expect(page.locator('#main')).to_be_focused()
    page.goto('/by')
    line = page.get_by_role('link', name='bob', exact=True)
    for _ in range(60):
        page.keyboard.press('Tab')
        if line.evaluate('o => o==document.activeElement'): break
    page.keyboard.press('Enter')
    expect(line).to_have_attribute('aria-expanded', 'true')
    expect(line).to_be_focused() # where the reader was

def test_own_calls_only(chromium, url, ledger):
    with signed_in(chromium, url, ledger.add_key('self', user_id='ada')) as p:
        for o in ('/','/by','/by?by=team','/calls','/sessions'):
            p.goto(o)
            expect(p.locator('.notice').first).to_contain_text('user ada')
            assert '>bob<' not in p.content() and '>blue<' not in p.content(), o
        p.goto('/calls?user=bob')
        expect(p.locator('main')).to_contain_text('No calls of user bob')

def test_signing_out(page):
    page.get_by_role('button', name='Sign out').click()
    page.goto('/calls')
    expect(page.get_by_role('button', name='Sign in')).to_be_visible()

def test_colours_stay(page):
    page.get_by_role('button', name='dark').click()
    page.goto('/calls')
    expect(page.locator('html')).to_have_class('dark')
    expect(page.get_by_role('button', name='dark')).to_have_attribute('aria-pressed', 'true')

places = '/','/by?open=ada','/calls','/calls?open=1','/calls?user=nobody','/sessions','/session?session=s-3','/login'

@pytest.mark.parametrize('scheme', ['light','dark'])
@pytest.mark.parametrize('width', [390,1440])
def test_axe_finds_nothing_serious(chromium, url, key, scheme, width):
    with signed_in(chromium, url, key, color_scheme=scheme, viewport=dict(width=width, height=900)) as p:
        for o in places:
            p.goto(o)
            if o=='/': expect(p.locator('section', has_text='Prompt caches')).to_contain_text('Unread')
            bad = [(v['id'], [n['target'] for n in v['nodes']][:3]) for v in Axe().run(p).response['violations'] if v['impact'] in ('serious','critical')]
            assert bad==[], (o, bad)
            assert p.evaluate('document.documentElement.scrollWidth') <= width, o
