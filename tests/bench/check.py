#!/usr/bin/env python3
"""`ringlet bench` in its shortest form: what it prints and writes has the right shape. Figures are never judged.

  check.py nano RINGLET PROGRAMS    all rows of the suite nano get a figure; table, JSON and HTML agree
  check.py broken RINGLET PROGRAMS  with programs that fail, rows fail and the run does not
  check.py alone RINGLET PROGRAMS   without QEMU and guests: the rest runs, what is missing is named
  check.py qemu RINGLET PROGRAMS    a QEMU that runs no guest is left out with its reason
  check.py apps RINGLET PROGRAMS    Debian's applications run to their end, in a guest under --verify and on the host
  check.py interrupted RINGLET PROGRAMS  Ctrl-C: what has been measured is kept and marked as partial
"""
import html.parser, json, os, shutil, signal, subprocess, sys, tempfile, time

VOID = {'meta', 'rect', 'line', 'path', 'polyline'}


class Balanced(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, '</%s> after %s' % (tag, self.open[-3:])
        self.open.pop()


def command(ringlet, programs, directory, *arguments):
    return [ringlet, 'bench', '--quick', '--json', os.path.join(directory, 'bench.json'), '--html',
            os.path.join(directory, 'bench.html'), '--programs', programs, *arguments]


def read(directory):
    page = Balanced()
    page.feed(open(os.path.join(directory, 'bench.html')).read())
    assert not page.open and 'table' in page.seen, 'the page is no page'
    return json.load(open(os.path.join(directory, 'bench.json'))), page


def run(ringlet, programs, directory, *arguments, **options):
    p = subprocess.run(command(ringlet, programs, directory, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, timeout=280, **options)
    print(p.stdout, p.stderr)
    assert p.returncode == 0, 'exit status %d' % p.returncode
    return (p.stdout, *read(directory))


def fake_programs(programs, directory, scripts):
    """The kernels end at once; the programs are these shell scripts, or fail."""
    fakes = os.path.join(directory, 'programs')
    os.mkdir(fakes)
    for name in ('linux', 'compute', 'scale', 'apps'):
        path = os.path.join(fakes, name)
        with open(path, 'w') as f:
            f.write('#!/bin/sh\n' + scripts.get(name, 'exit 1') + '\n')
        os.chmod(path, 0o755)
    for name in ('nano.elf', 'probe.elf'):
        shutil.copy(os.path.join(programs, 'probe.elf'), os.path.join(fakes, name))
    return fakes


def nano(ringlet, programs, directory):
    table, result, page = run(ringlet, programs, directory, '--suite', 'nano', '--engines', 'ringlet')
    assert 'svg' in page.seen  # where the time went; there is nobody to compare with
    assert result['partial'] is False and result['rounds'] == 1 and len(result['rows']) >= 19
    for row in result['rows']:
        figure = row['results']['ringlet']
        assert row['suite'] == 'nano' and row['unit'] == 'cycles'
        assert figure['samples'] == [figure['median']] and figure['min'] == figure['max'] == figure['median']
        assert row['what'] in table
        assert figure['events'] > 0 and figure['time_ns']['kernel'] + figure['time_ns']['user'] > 0, row
    assert sum(result['ringlet_time_ns']['nano'].values()) > 0
    rows = {row['name']: row['results']['ringlet']['per_event'] for row in result['rows']}
    assert rows['cr3']['cr3_writes'] == 1 and rows['callret']['cr3_writes'] == 0 and rows['int80']['signals'] < 0.1


def broken(ringlet, programs, directory):
    """One program fails, one says nothing, one dies, one is not there; the kernel ends at once."""
    fakes = fake_programs(programs, directory, {
        'linux': 'test "$1" = nothing || { echo in vain; echo out of luck >&2; exit 1; }',
        'compute': 'exit 0', 'scale': 'kill -9 $$'})
    _, result, _ = run(ringlet, fakes, directory, '--suite', 'nano,linux,compute,scale', '--engines', 'ringlet,native',
                       '--cache', '/nonexistent')
    assert any('/nonexistent' in note for note in result['left_out']), result['left_out']
    failed = {row['name']: {e: r['failed'] for e, r in row['results'].items()} for row in result['rows']}
    assert failed['in']['ringlet'] == 'the guest ended before, with status 85', failed['in']
    assert failed['fork']['native'] == 'out of luck' and 'fib' in failed and 'touch_16' in failed
    # Real programs, of which only what they should run is missing: their own row says so.
    shutil.copy(os.path.join(programs, 'apps'), fakes)
    os.makedirs(os.path.join(directory, 'cache/apps/usr/bin'))
    _, result, _ = run(ringlet, fakes, directory, '--suite', 'apps', '--engines', 'native', '--cache',
                       os.path.join(directory, 'cache'))
    assert len(result['rows']) >= 10 and all('failed' in row['results']['native'] for row in result['rows'])


def alone(ringlet, programs, directory):
    fakes = fake_programs(programs, directory, {'linux': 'test "$1" = nothing || echo row $1 1000'})
    table, result, _ = run(ringlet, fakes, directory, '--suite', 'linux,apps,boot', '--cache', '/nonexistent',
                           '--engines', 'tcg,kvm,native', env={'PATH': '/nonexistent'})
    engines = {e['name']: e for e in result['engines']}
    assert 'not installed' in engines['tcg']['note'] and not engines['tcg']['here'] and engines['native']['here']
    assert 'left out: tcg: qemu-system-i386 is not installed' in table
    for part in ('linux: no guest in /nonexistent', 'bootstrap apps'):
        assert any(part in note for note in result['left_out']), result['left_out']
    figures = {row['name']: row['results'] for row in result['rows']}
    assert figures['fork']['native']['median'] == 1 and figures['gzip'] == {} and figures['boot_686'] == {}


def qemu(ringlet, programs, directory):
    """A QEMU that is installed and runs nothing: its own words say why it is left out."""
    fakes = fake_programs(programs, directory, {'linux': 'test "$1" = nothing || echo row $1 1000'})
    path = os.path.join(directory, 'qemu-system-i386')
    with open(path, 'w') as f:
        f.write('#!/bin/sh\necho starting\necho it does not fit\nexit 1\n')
    os.chmod(path, 0o755)
    _, result, _ = run(ringlet, fakes, directory, '--suite', 'linux', '--cache', '/nonexistent', '--engines', 'tcg,kvm,native',
                       env={'PATH': directory})
    engines = {e['name']: e for e in result['engines']}
    assert engines['tcg'] == {'name': 'tcg', 'here': False, 'note': 'does not run a guest: it does not fit'}, engines
    assert engines['kvm']['note'] in ('/dev/kvm cannot be opened', engines['tcg']['note'])
    assert all(list(row['results']) == ['native'] for row in result['rows'] if row['name'] != 'forkwait')


def apps(ringlet, programs, directory):
    cache = os.environ.get('RINGLET_CACHE') or os.path.join(os.environ.get('XDG_CACHE_HOME') or
                                                            os.path.expanduser('~/.cache'), 'ringlet')
    if not all(os.path.exists(os.path.join(cache, f)) for f in ('apps.cpio', 'vmlinuz-686', 'busybox')):
        print('skipped: `sh host/bootstrap guests` has not fetched the guests')
        sys.exit(77)
    _, result, _ = run(ringlet, programs, directory, '--suite', 'apps', '--engines', 'ringlet,native', '--extra', '--verify')
    assert not result['partial'] and not result['left_out'], result['left_out']
    for row in result['rows']:
        figure = row['results']['ringlet']
        assert figure['median'] > 0 and figure['events'] == 1 and 'failed' not in figure, row
        if row['name'] == 'sysbench':  # computes; statistics that say otherwise would mislead
            shares = figure['time_ns']
            assert shares['user'] + shares['direct'] > 0.7 * (sum(shares.values()) - shares['host_kernel']), shares
        # A host may forbid what a chroot needs; then every row says so.
        native = row['results']['native']
        assert native.get('median', 0) > 0 or 'change the root directory' in native['failed'], row
        for engine in (figure, native):  # CPU time on one CPU, of which the accounting may be a tick of 4 ms late
            if row['better'] == 'lower' and 'median' in engine:
                assert 0 < engine['user']['median'] <= engine['median'] + 8, row
            else:
                assert 'user' not in engine, row
    assert result['mean_user_ahead_of']['apps'].keys() == result['mean_ahead_of']['apps'].keys(), result['mean_user_ahead_of']


def interrupted(ringlet, programs, directory):
    started = os.path.join(directory, 'started')
    fakes = fake_programs(programs, directory, {'linux': 'test "$1" = nothing || echo row $1 1000',
                                                'compute': ': >' + started + '; exec sleep 600'})
    child = subprocess.Popen(command(ringlet, fakes, directory, '--suite', 'linux,compute', '--engines', 'native',
                                     '--cache', '/nonexistent'), stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if os.path.exists(started):
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    table, _ = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGINT, child.returncode
    result, _ = read(directory)
    figures = {row['name']: row['results'] for row in result['rows']}
    assert result['partial'] is True and 'PARTIAL' in table
    assert figures['fork']['native']['median'] == 1 and figures['fib'] == {} and figures['jit'] == {}


def main():
    what, ringlet, programs = sys.argv[1], sys.argv[2], os.path.dirname(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        tests = {'nano': nano, 'broken': broken, 'alone': alone, 'qemu': qemu, 'apps': apps, 'interrupted': interrupted}
        tests[what](ringlet, programs, directory)


if __name__ == '__main__':
    main()
