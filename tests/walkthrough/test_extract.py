#!/usr/bin/env python3
"""extract.py must print passages in order and refuse what is wrong: a checker that accepts everything is no use."""
import os, subprocess, sys, tempfile

EXTRACT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'extract.py')
GOOD = '/*T:210 Second\n * text two\n :*/\nint b;\n/*T:110 First\n * text one\n * more\n :*/\nint a;\n'
BAD = {
    'the same number twice': '/*T:110 A\n * x\n :*/\n/*T:110 B\n * y\n :*/\n',
    'not closed': '/*T:110 A\n * x\n',
    'closed by a plain comment end': '/*T:110 A\n * x\n */\n',
    'another passage before the end': '/*T:110 A\n * x\n/*T:120 B\n * y\n :*/\n',
    'no chapter': '/*T:42 A\n * x\n :*/\n',
    'no title': '/*T:110\n * x\n :*/\n',
    'no text': '/*T:110 A\n :*/\n',
    'no passage': 'int a;\n',
}


def run(text, *options):
    with tempfile.TemporaryDirectory() as root:
        with open(os.path.join(root, 'a.c'), 'w') as f:
            f.write(text)
        p = subprocess.run([sys.executable, EXTRACT, *options, root], stdout=subprocess.PIPE, text=True)
        return p.returncode, p.stdout


def main():
    status, out = run(GOOD)
    assert status == 0 and out.index('text one') < out.index('more') < out.index('text two'), out
    assert out.index('PREPARATION') < out.index('BOOT') and 'a.c:5' in out, out
    assert run(GOOD, '--check') == (0, '2 passages\n')
    for why, text in BAD.items():
        status, out = run(text, '--check')
        assert status == 1 and out.strip(), 'accepted: ' + why
    print('%d refusals, 1 story' % len(BAD))


main()
