#!/usr/bin/env python3
"""What can be watched: every trace category and the statistics, on the embedded guest.

  observe.py RINGLET
"""
import json, os, re, subprocess, sys, tempfile

TRACES = {  # category: a line it must produce for the tour
    'block': rb'^block \d+: eip [0-9a-f]{8}',
    'exception': rb'^event 0e error [0-9a-f]{8} cr2 40002000',
    'shadow': rb'^shadow: kernel 0: map writable [0-9a-f]{8}, \d+ pages?$',
    'device': rb'COM1',
}
NOT_ZERO = [('translation', 'blocks'), ('translation', 'instructions'), ('translation', 'chained'),
            ('memory', 'true_faults'), ('memory', 'hidden_faults'), ('memory', 'pages_filled'), ('memory', 'pt_pages'),
            ('host', 'mmap'), ('host', 'signals'), ('cpu', 'software_ints'), ('cpu', 'irets')]


def run(ringlet, *options):
    p = subprocess.run([ringlet, 'run', *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60)
    if p.returncode:
        sys.exit('%s: status %d\n%s' % (' '.join(options), p.returncode, p.stderr.decode('latin-1')))
    return p.stderr


def main():
    ringlet = sys.argv[1]
    wrong = []
    with tempfile.TemporaryDirectory() as directory:
        for category, pattern in TRACES.items():
            name = os.path.join(directory, category)
            run(ringlet, '--trace=%s:%s' % (category, name))
            with open(name, 'rb') as f:
                text = f.read()
            if not re.search(pattern, text, re.M):
                wrong.append('--trace=%s has no line like %r; it begins:\n%s' % (category, pattern, text[:300]))
            for other, its in TRACES.items():
                if other != category and re.search(its, text, re.M):
                    wrong.append('--trace=%s also traces %s' % (category, other))
    stats = json.loads(run(ringlet, '--stats=json'))
    wrong += ['--stats=json: %s.%s is %r' % (g, c, stats.get(g, {}).get(c)) for g, c in NOT_ZERO
              if not stats.get(g, {}).get(c)]
    for line in wrong:
        print('failed:', line)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
