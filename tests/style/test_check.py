#!/usr/bin/env python3
"""check.py must find what it is there for."""
import os, subprocess, sys, tempfile

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'check.py')
MODULES = ['host', 'shadowpt', 'ringcomp', 'devmodel', 'bt', 'monitor']


def tree(extra):
    files = {'README.md': '', 'LICENSE': '', 'meson.build': ''}
    for m in MODULES:
        files['%s/README.md' % m] = ''
        files['%s/include/%s/%s.h' % (m, m, m)] = 'int %s_x(void);\n' % m
        files['tests/unit/test_%s.c' % m] = ''
    files.update(extra)
    return {k: v for k, v in files.items() if v is not None}


def run(what, extra, *args):
    with tempfile.TemporaryDirectory() as root:
        for name, text in tree(extra).items():
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            with open(os.path.join(root, name), 'w') as f:
                f.write(text)
        p = subprocess.run([sys.executable, CHECK, what, root, *args], stdout=subprocess.PIPE, text=True)
        return p.returncode


def main():
    cc = sys.argv[1:]
    good = [('layout', {}), ('includes', {'bt/a.c': '#include "shadowpt/shadowpt.h"\n#include "own.h"\n'}), ('units', {}),
            ('headers', {})]
    bad = [
        ('layout', {'tools/x.c': ''}), ('layout', {'notes.txt': ''}), ('layout', {'bt/utils.c': ''}),
        ('layout', {'bt/README.md': None}),
        ('includes', {'shadowpt/a.c': '#include "bt/bt.h"\n'}), ('includes', {'devmodel/a.h': '#include "ringcomp/ringcomp.h"'}),
        ('includes', {'host/a.c': '#include "../bt/x.h"\n'}), ('includes', {'bt/a.c': '#include "b.c"\n'}),
        ('units', {'tests/unit/test_bt.c': None}), ('headers', {'bt/include/bt/bt.h': 'uint32_t x(void);\n'}),
        ('headers', {'host/include/host/host.h': None}),
    ]
    for what, extra in good:
        assert run(what, extra, *cc) == 0, ('refused', what, extra)
    for what, extra in bad:
        assert run(what, extra, *cc) == 1, ('accepted', what, extra)
    print('%d refusals' % len(bad))


main()
