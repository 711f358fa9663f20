#!/usr/bin/env python3
"""Run a hostile guest under strace and judge what the host's kernel was asked by the worlds it ran in.

  strace_worlds.py RINGLET GUEST [--worlds N] [--stopped N] [--stopped64 N]

From the moment a world's task has its seccomp filter, each of its system calls must either be one of the stub's few,
made from the stub's page, or be stopped: then strace shows the call and, as the task's next event, SIGSYS from seccomp.
The N are the least there must be of each, so that a guest that attacked nothing does not pass.
"""
import argparse, collections, os, re, shutil, subprocess, sys, tempfile

SKIP = 77
STUB = range(0x700000000000, 0x700000001000)  # host/world_layout.h
GUEST_END = 1 << 32
RAM_FD = '3'
ALLOWED = {'runner': {'pause'}, 'mapper': {'pause', 'mmap', 'munmap', 'modify_ldt', 'exit_group'}}
LINE = re.compile(r'(\d+) +\[([0-9a-f?]+)\] (.*)')
CALL = re.compile(r'(\w+)\((.*)')
STOPPED = re.compile(r'--- SIGSYS .*si_code=SYS_SECCOMP.*si_arch=(\w+)')


class Task:
    def __init__(self, role):
        self.role = role
        self.locked = False
        self.locking = False
        self.refused = None  # a call that must be stopped: its line


class Judge:
    def __init__(self):
        self.tasks = {}
        self.wrong = []
        self.seen = collections.Counter()

    def birth(self, tid, text):
        """Before its filter is on: who is who."""
        task = self.tasks.get(tid)
        if text.startswith('execveat(') and '"ringlet-world"' in text:
            self.tasks[tid] = Task('mapper')
            self.seen['worlds'] += 1
        elif task and task.role == 'mapper' and re.search(r'clone(\(| resumed).* = \d+$', text):
            self.tasks[int(text.rsplit(' ', 1)[1])] = Task('runner')
            self.seen['runners'] += 1
        elif task and text.startswith('seccomp(SECCOMP_SET_MODE_FILTER, 0,'):
            task.locking = True
        if task and task.locking and 'seccomp' in text and '=' in text.rsplit(')', 1)[-1]:
            task.locked = text.endswith(' = 0')
            task.locking = False

    def fits(self, task, name, args):
        """The mapper's calls concern nothing but guest memory in the guest's 4 GiB."""
        if name not in ('mmap', 'munmap'):
            return True
        words = [w.strip() for w in re.split(r'\)| <unfinished', args)[0].split(',')]
        start, length = (0 if w == 'NULL' else int(w, 0) for w in words[:2])
        if start + length > GUEST_END:
            return False
        return name == 'munmap' or (words[4] == RAM_FD and words[3].startswith('MAP_SHARED|MAP_FIXED'))

    def locked(self, task, ip, text):
        if text.startswith('<... '):
            return  # the rest of a line that was judged when it began
        if task.refused:
            stopped = STOPPED.match(text)
            if stopped:
                self.seen['stopped'] += 1
                self.seen['stopped64'] += stopped.group(1) == 'AUDIT_ARCH_X86_64'
            elif not text.startswith('+++ killed by'):
                self.wrong.append('not stopped: %s, then %s' % (task.refused, text))
            task.refused = None
        call = CALL.match(text)
        if not call:
            if not text.startswith(('---', '+++')):
                self.wrong.append('not understood: ' + text)
            return
        name, args = call.groups()
        if ip in STUB and name in ALLOWED[task.role] and self.fits(task, name, args):
            self.seen[task.role] += 1
        elif task.role == 'mapper':
            self.wrong.append('the mapper asks for ' + text)  # it runs no guest code: it should not even try
        else:
            task.refused = text

    def line(self, line):
        m = LINE.match(line)
        if not m:
            return
        tid, ip, text = int(m.group(1)), m.group(2), m.group(3)
        task = self.tasks.get(tid)
        if task and task.locked:
            self.locked(task, int(ip, 16) if '?' not in ip else 0, text)
        else:
            self.birth(tid, text)
        if task and text.startswith('+++'):
            del self.tasks[tid]  # its number may come again


def skip_without_strace():
    if not shutil.which('strace'):
        print('skipped: strace is not installed (apt-get install strace)')
        sys.exit(SKIP)
    p = subprocess.run(['strace', '-f', '-i', '-o', os.devnull, 'true'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                       text=True)
    if p.returncode:
        print('skipped: strace may not trace here:', p.stderr.strip())
        sys.exit(SKIP)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('ringlet')
    a.add_argument('guest')
    for what in ('worlds', 'stopped', 'stopped64'):
        a.add_argument('--' + what, type=int, default=1)
    o = a.parse_args()
    skip_without_strace()
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, 'log')
        p = subprocess.run(['strace', '-f', '-i', '-o', log, o.ringlet, 'run', '--multiboot', o.guest, '--memory', '64M',
                            '--serial', 'stdio', '--no-reboot', '--user', 'direct'], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace', timeout=50)
        if '--user direct is not possible' in p.stderr:
            print('skipped:', p.stderr)
            sys.exit(SKIP)
        judge = Judge()
        with open(log, errors='replace') as f:
            for line in f:
                judge.line(line.rstrip('\n'))
    print('worlds %(worlds)d, runners %(runners)d; allowed calls of runners %(runner)d, of mappers %(mapper)d; '
          'stopped %(stopped)d, of these from 64-bit code %(stopped64)d' % judge.seen)
    wrong = judge.wrong
    if p.returncode != 1 or not re.search(r'^DONE: [1-9]\d* checks, 0 failed', p.stdout, re.M):
        wrong.append('the guest ended with status %d:\n%s%s' % (p.returncode, p.stdout[-500:], p.stderr))
    for what in ('worlds', 'stopped', 'stopped64'):
        if judge.seen[what] < getattr(o, what):
            wrong.append('%s: %d, expected at least %d' % (what, judge.seen[what], getattr(o, what)))
    if judge.seen['runners'] != judge.seen['worlds']:
        wrong.append('%(worlds)d worlds, but %(runners)d runners' % judge.seen)
    if wrong:
        print('failed:\n' + '\n'.join(wrong[:20]))
        sys.exit(1)


if __name__ == '__main__':
    main()
