#!/usr/bin/env python3
"""planted.py ORACLE MNEMONIC: an engine that gets one instruction wrong is found out, and the sequence shown is short."""
import re, subprocess, sys

oracle, mnemonic = sys.argv[1:]
p = subprocess.run([oracle, '--plant', mnemonic, '20000', '77'], stdout=subprocess.PIPE, text=True)
code = re.findall(r'^    [0-9a-f]{8}  (?:[0-9a-f]{2} )+ *(.*)$', p.stdout, re.M)
print(p.stdout)
if p.returncode != 1:
    sys.exit('exit status %d instead of 1' % p.returncode)
if len(code) != 2 or not code[0].startswith(mnemonic) or not code[1].startswith('jmp'):
    sys.exit('not shrunk to the one instruction: %s' % code)
