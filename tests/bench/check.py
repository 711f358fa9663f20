#!/usr/bin/env python3
"""`ringlet bench` in its shortest form: what it prints and writes has the right shape. Figures are never judged.

  check.py nano RINGLET PROGRAMS    all rows of the suite nano get a figure; table, JSON and HTML agree
  check.py broken RINGLET PROGRAMS  with programs that fail, rows fail and the run does not
"""
import html.parser, json, os, shutil, subprocess, sys, tempfile

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


def run(ringlet, programs, directory, *arguments):
    j, h = os.path.join(directory, 'bench.json'), os.path.join(directory, 'bench.html')
    cmd = [ringlet, 'bench', '--quick', '--json', j, '--html', h, '--programs', programs, *arguments]
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=280)
    print(p.stdout, p.stderr)
    assert p.returncode == 0, 'exit status %d' % p.returncode
    page = Balanced()
    page.feed(open(h).read())
    assert not page.open and {'svg', 'table'} & page.seen, 'the page is no page'
    return p.stdout, json.load(open(j)), page


def nano(ringlet, programs, directory):
    table, result, page = run(ringlet, programs, directory, '--suite', 'nano', '--engines', 'ringlet')
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
    """One program fails, one says nothing, the kernel ends at once."""
    fakes = os.path.join(directory, 'programs')
    os.mkdir(fakes)
    for name, text in (('linux', 'test "$1" = nothing || { echo out of luck >&2; exit 1; }'), ('compute', 'exit 0'),
                       ('scale', 'kill -9 $$')):
        path = os.path.join(fakes, name)
        with open(path, 'w') as f:
            f.write('#!/bin/sh\n' + text + '\n')
        os.chmod(path, 0o755)
    for name in ('nano.elf', 'probe.elf'):
        shutil.copy(os.path.join(programs, 'probe.elf'), os.path.join(fakes, name))
    _, result, _ = run(ringlet, fakes, directory, '--suite', 'nano,linux,compute,scale', '--engines', 'ringlet,native',
                       '--cache', '/nonexistent')
    assert any('/nonexistent' in note for note in result['left_out']), result['left_out']
    failed = {row['name']: {e: r['failed'] for e, r in row['results'].items()} for row in result['rows']}
    assert failed['in']['ringlet'] == 'the guest ended before, with status 85', failed['in']
    assert 'out of luck' in failed['fork']['native'] and 'fib' in failed and 'touch_16' in failed


def main():
    what, ringlet, programs = sys.argv[1], sys.argv[2], os.path.dirname(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        {'nano': nano, 'broken': broken}[what](ringlet, programs, directory)


if __name__ == '__main__':
    main()
