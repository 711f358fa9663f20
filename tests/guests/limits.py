#!/usr/bin/env python3
"""Worlds when the monitor is killed, and when the host has little to give.

  limits.py death RINGLET SPIN_USER SPIN_KERNEL SPIN_HALTED
  limits.py limits RINGLET COMPUTE HOSTILE

death: SIGKILL to the monitor at every moment of a world's birth, and with the guest in user mode, in its kernel and halted:
within two seconds no process of its session is left. limits: with any number of processes, descriptors or bytes of
address space, and with few mappings, the guest does all it would do, natively or translated, or the monitor ends with
status 4 and a line that says why; it never hangs, and leaves no process.
"""
import ctypes, os, re, resource, signal, subprocess, sys, tempfile, time

SKIP = 77
NOBODY = 54321  # a user without processes: RLIMIT_NPROC counts a user's, and root's not at all
PR_SET_CHILD_SUBREAPER = 36


def session_members(session):
    """Processes of a session that are not zombies."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid) as f:
                state, _, _, sid = f.read().rsplit(')', 1)[1].split()[:4]
        except OSError:
            continue
        if int(sid) == session and state not in 'ZX':
            found.append(int(pid))
    return found


def left_behind(session):
    """Who is still there two seconds after the monitor's end; ends them."""
    deadline = time.monotonic() + 2
    while (there := session_members(session)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    return there


def start(ringlet, guest, *options, limits=(), unprivileged=False, **pipes):
    def prepare():
        for what, value in limits:
            resource.setrlimit(what, (value, value))
        if unprivileged:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    return subprocess.Popen([ringlet, 'run', '--multiboot', guest, '--memory', '64M', '--serial', 'stdio', '--no-reboot',
                             *options], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare,
                            cwd='/', **pipes)


# ---- Death ----

def kill_after(ringlet, guest, seconds):
    """Returns how many worlds' processes there were, and what is left."""
    p = start(ringlet, guest, '--user', 'direct', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    worlds = len(session_members(p.pid)) - 1
    p.kill()
    p.wait()
    return worlds, left_behind(p.pid)


def wait_for(p, text):
    got = b''
    while text not in got:
        chunk = os.read(p.stdout.fileno(), 4096)
        if not chunk:
            sys.exit('failed: the guest ended before it said %r' % text)
        got += chunk


def kill_in_state(ringlet, guest):
    p = start(ringlet, guest, '--user', 'direct', stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(p, b'LAST WORDS')
    time.sleep(0.05)
    worlds = len(session_members(p.pid)) - 1
    p.kill()
    p.wait()
    return worlds, left_behind(p.pid)


def death(ringlet, *guests):
    wrong = []
    seen = set()
    for i in range(60):  # a birth takes a millisecond or two, at about ten milliseconds
        worlds, left = kill_after(ringlet, guests[0], i * 0.0005)
        seen.add(min(worlds, 1))
        if left:
            wrong.append('killed %.1f ms after its start: %s left' % (i / 2, left))
    print('killed during its start: %s' % ('before and after a world' if len(seen) == 2 else 'always at one side'))
    for guest in guests:
        for _ in range(5):
            worlds, left = kill_in_state(ringlet, guest)
            if worlds < 1 or left:
                wrong.append('%s: %d worlds, %s left' % (os.path.basename(guest), worlds, left))
    return wrong


# ---- Limits ----

def outcome(ringlet, guest, *options, **how):
    """'native', 'translated', 'refused', or what is wrong."""
    p = start(ringlet, guest, *options, '--stats', stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    try:
        out, err = p.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        left_behind(p.pid)
        return 'hangs'
    left = left_behind(p.pid)
    out, err = out.decode('latin-1'), err.decode('latin-1')
    lines = re.findall(r'^ringlet: .*$', err, re.M)
    if left:
        return 'leaves processes behind: %s' % left
    if p.returncode == 4 and lines and 'DONE' not in out:
        return 'refused'
    if p.returncode != 1 or not re.search(r'^DONE: [1-9]\d* checks, 0 failed', out, re.M):
        return 'status %d: %s' % (p.returncode, err[:300] or out[-300:])
    if re.search(r'entries into worlds +[1-9]', err):
        return 'native'
    if not lines:
        return 'translates, and says nothing'
    return 'translated'


def sweep(wrong, title, ringlet, guest, policy, what, values, want, **how):
    """want: outcomes that must occur in the sweep. Any other than the three is wrong."""
    seen = {}
    for value in values:
        got = outcome(ringlet, guest, '--user', policy, limits=[(what, value)], **how)
        seen.setdefault(got, []).append(value)
    print('%s, %s: %s' % (title, policy, '; '.join('%s at %s' % (k, v if len(v) < 5 else '%d..%d' % (v[0], v[-1]))
                                                   for k, v in seen.items())))
    for got, at in seen.items():
        if got not in ('native', 'translated', 'refused'):
            wrong.append('%s of %s, --user %s: %s' % (title, at, policy, got))
    for outcome_wanted in want:
        if outcome_wanted not in seen:
            wrong.append('%s, --user %s: never %s' % (title, policy, outcome_wanted))


def limits(ringlet, compute, hostile):
    wrong = []
    TIB = 1 << 40
    sweep(wrong, 'descriptors', ringlet, compute, 'auto', resource.RLIMIT_NOFILE, [4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 24, 32],
          ['refused', 'translated', 'native'])
    sweep(wrong, 'descriptors', ringlet, hostile, 'direct', resource.RLIMIT_NOFILE, [8, 12, 16, 20, 24, 32, 48, 64],
          ['refused', 'native'])
    for policy, guest in (('auto', compute), ('direct', hostile)):
        sweep(wrong, 'address space', ringlet, guest, policy, resource.RLIMIT_AS,
              [1 << 26, 1 << 30, TIB // 4, TIB, 4 * TIB, resource.RLIM_INFINITY], ['refused', 'native'])
    for maps in (500, 2000):
        for policy, guest in (('auto', compute), ('direct', hostile)):
            got = outcome(ringlet, guest, '--user', policy, '--max-maps=%d' % maps)
            print('%d mappings, %s: %s' % (maps, policy, got))
            if got != 'native' and not (maps == 500 and got == 'refused'):
                wrong.append('--max-maps=%d --user %s: %s' % (maps, policy, got))
    unprivileged = os.geteuid() == 0
    if unprivileged and not unprivileged_works(ringlet):
        print('processes: not tried, another user may not run', ringlet)
        return wrong
    how = {'unprivileged': unprivileged}
    values = [1, 2, 3, 4, 5, 6, 1000] if unprivileged else [1, resource.getrlimit(resource.RLIMIT_NPROC)[1]]
    sweep(wrong, 'processes', ringlet, compute, 'auto', resource.RLIMIT_NPROC, values, ['native'], **how)
    sweep(wrong, 'processes', ringlet, hostile, 'direct', resource.RLIMIT_NPROC, values, ['refused', 'native'], **how)
    return wrong


def unprivileged_works(ringlet):
    """Can another user run the binary at all?"""
    try:
        return start(ringlet, '/dev/null', unprivileged=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 4
    except OSError:
        return False


def main():
    what, ringlet, *guests = sys.argv[1], *map(os.path.abspath, sys.argv[2:])
    p = subprocess.run([ringlet, 'run', '--user', 'direct', '--memory', '4M', '--serial', 'null', '--multiboot', os.devnull],
                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if '--user direct is not possible' in p.stderr:
        print('skipped:', p.stderr)
        sys.exit(SKIP)
    # Orphans come to us, so that a number that is used again cannot be taken for one of them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wrong = {'death': death, 'limits': limits}[what](ringlet, *guests)
    if wrong:
        print('failed:\n' + '\n'.join(wrong))
        sys.exit(1)


if __name__ == '__main__':
    main()
