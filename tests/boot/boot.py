#!/usr/bin/env python3
"""Boot a guest operating system, use it, and switch it off.

  boot.py linux   Debian's kernel to a shell: files, pipes, 200 fork+exec, SSE2 and x87, dmesg, power-off
  boot.py file    the same kernel with its console in a file (--serial file:PATH)
  boot.py mach    GNU Mach by Multiboot, as far as it gets without a bootstrap program

`--vmm qemu` runs the same on qemu-system-i386. The guests come from `sh host/bootstrap guests`; without them the
test is skipped (exit status 77).
"""
import argparse, ctypes, hashlib, mmap, os, re, subprocess, sys, tempfile, time
os.environ.pop('MALLOC_PERTURB_', None) # meson's; it would make every reserved byte a resident one
from console import Guest, Trouble, cache_dir, command_line, cpio_newc

# What a kernel log must not contain. The plain word WARNING also heads harmless advice; a warning that comes
# from a check in the code carries the CPU's number.
BAD_LOG = re.compile(r'Oops|BUG:|soft lockup|hard LOCKUP|rcu.*(stall|starved)|WARNING: CPU|Call Trace|'
                     r'general protection|segfault|unable to handle|double fault|unchecked MSR')
# A busy host may make the kernel's quick calibration fail; it then measures longer. It must succeed in the end.
BAD_TIME = re.compile(r'Marking (clocksource|TSC)|could not calculate TSC|Unable to calibrate .*APIC|clocksource.*unstable')


def require(holds, what):
    if not holds:
        raise Trouble(what)


def guest_file(name):
    path = os.path.join(cache_dir(), name)
    if not os.path.exists(path):
        print('skipped: no %s (sh host/bootstrap guests fetches the guests)' % path)
        sys.exit(77)
    return path


def initrd_with(files, directory):
    """Debian's initramfs and, behind it, an archive with our programs in /bin: the kernel unpacks both."""
    with open(guest_file('initramfs.cpio.gz'), 'rb') as f:
        data = f.read()
    data += b'\0' * (-len(data) % 4)
    data += cpio_newc({'bin/' + os.path.basename(p): open(p, 'rb').read() for p in files})
    path = os.path.join(directory, 'initrd')
    with open(path, 'wb') as f:
        f.write(data)
    return path


def output_is(guest, command, expected, timeout):
    status, text = guest.shell(command, timeout)
    require(status == 0, '%r ended with status %d' % (command, status))
    require(text.strip() == expected, '%r printed %r instead of %r' % (command, text.strip(), expected))


def md5(data):
    return hashlib.md5(data).hexdigest() + '  -'


def check_commands(guest, o):
    slow = o.timeout / 4
    numbers = ''.join('%d\n' % i for i in range(1, 5001)).encode()
    output_is(guest, 'seq 1 5000 | md5sum', md5(numbers), slow)
    output_is(guest, 'seq 1 5000 | sort -rn | head -n 1 | cat | cat', '5000', slow)
    output_is(guest, 'seq 1 5000 >/tmp/n && cp /tmp/n /tmp/m && cat /tmp/m | md5sum', md5(numbers), slow)
    output_is(guest, 'yes ringlet | head -c 1000000 | gzip | gunzip | md5sum', md5((b'ringlet\n' * 125000)[:1000000]),
              slow)
    output_is(guest, 'mkdir -p /tmp/d/e && cd /tmp/d && echo x >e/f && mv e g && rm -r g && ls | wc -l; cd /root', '0',
              slow)
    output_is(guest, 'i=0; while [ $i -lt %d ]; do /bin/true || break; i=$((i+1)); done; echo $i' % o.forks,
              str(o.forks), slow)
    output_is(guest, 'sleep 1 & sleep 1; wait; echo $((6*7))', '42', slow)


def check_programs(guest, o):
    status, text = guest.shell('fpu', o.timeout / 4)
    require(status == 0 and re.search(r'fpu: [1-9]\d* checks, 0 failed', text), 'the SSE2 and x87 program: ' + text)


def check_memory(guest, o):
    status, text = guest.shell("grep -E 'MemTotal|HighTotal' /proc/meminfo", 30)
    total = int(re.search(r'MemTotal: *(\d+)', text).group(1)) >> 10
    require(total > o.memory * (0.5 if o.memory <= 64 else 0.88),
            'the guest sees %d MiB of %d' % (total, o.memory))
    if o.memory >= 2048: # user pages come from high memory, which the kernel reaches only through kmap
        size = o.memory // 2
        status, _ = guest.shell('mkdir /tmp/t && mount -t tmpfs -o size=90%% tmpfs /tmp/t && '
                                'dd if=/dev/zero of=/tmp/t/zeros bs=1M count=%d' % size, o.timeout)
        require(status == 0, 'dd of %d MiB into a tmpfs failed' % size)
        output_is(guest, 'yes high memory | head -c 8000000 >/tmp/t/text && md5sum </tmp/t/text',
                  md5((b'high memory\n' * 666667)[:8000000]), o.timeout)
        output_is(guest, 'rm /tmp/t/zeros && md5sum </tmp/t/text', md5((b'high memory\n' * 666667)[:8000000]),
                  o.timeout)


def check_log(guest, o):
    status, log = guest.shell('dmesg', o.timeout / 4)
    require('Linux version' in log or o.memory <= 64 or len(log) > 2000, 'dmesg shows no kernel log')
    bad = [line for line in log.split('\n') if BAD_LOG.search(line) or BAD_TIME.search(line)]
    require(not bad, 'the kernel complains: ' + ' / '.join(bad[:5]))


def check_clocks(guest, o):
    """What a host that takes the CPU away for long must not do to a guest's clocks."""
    require(not o.append, '--load needs the clock sources Linux chooses itself')
    guest.shell('sleep 3', o.timeout / 4) # the TSC is refined a second after it was found
    status, source = guest.shell('cat /sys/devices/system/clocksource/clocksource0/current_clocksource', 30)
    status, log = guest.shell('dmesg', o.timeout / 4)
    clocks = [line for line in log.split('\n') if re.search(r'tsc:|PM-Timer running|clocksource: time', line)]
    found = re.search(r'tsc: Detected ([\d.]+) MHz', log)
    refined = re.search(r'Refined TSC clocksource calibration: ([\d.]+) MHz', log)
    if source.strip() != 'tsc' or not found or not refined or 'running at invalid rate' in log:
        raise Trouble('clock source %s; %s' % (source.strip(), ' / '.join(clocks)))
    first, then = float(found.group(1)), float(refined.group(1))
    host = host_tsc_mhz()
    print('\n[TSC: %.3f MHz at first, %.3f MHz refined; the host has %.3f MHz]' % (first, then, host))
    require(abs(first / host - 1) < 0.005 and abs(then / host - 1) < 0.0005, 'the guest believes in another TSC rate')


def check_resident(guest):
    """RSS at the shell: no more than what the guest touched of its RAM, plus 64 MiB. Linux only shows it in /proc."""
    directory = '/proc/%d' % guest.process.pid
    with open(directory + '/status') as f:
        resident = int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1))
    touched = max(os.stat(directory + '/fd/' + name).st_blocks // 2 for name in os.listdir(directory + '/fd')
                  if 'memfd:' in os.readlink(directory + '/fd/' + name))
    print('resident: %d KiB, of guest RAM touched: %d KiB' % (resident, touched))
    require(resident <= touched + 64 * 1024, 'ringlet holds %d KiB besides %d KiB of guest memory' %
            (resident - touched, touched))


def host_tsc_mhz():
    """The TSC's rate against CLOCK_MONOTONIC, as a program of a dozen bytes reads it: rdtsc; shl rdx,32; or rax,rdx; ret."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex('0f3148c1e2204809d0c3'))
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def both(): # of ten readings the one least disturbed
        return min(((time.monotonic_ns() - t, t, tsc) for t, tsc in
                    ((time.monotonic_ns(), rdtsc()) for _ in range(10))))[1:]
    t0, c0 = both()
    time.sleep(0.5)
    t1, c1 = both()
    return (c1 - c0) * 1000 / (t1 - t0)


class Load:
    """Processes that compute for nothing, each in a session of its own so that the host's scheduler gives each as much as the
    guest (sched(7), autogroups)."""

    def __init__(self, n):
        self.processes = [subprocess.Popen(['sh', '-c', 'while :; do :; done'], start_new_session=True) for _ in range(n)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.wait()


def boot_linux(o):
    kernel = guest_file('vmlinuz-' + o.kernel)
    with tempfile.TemporaryDirectory() as directory, Load(o.load):
        cmd = command_line(o.vmm, o.ringlet, o.engine, o.memory, kernel=kernel,
                           initrd=initrd_with(o.program, directory), append='console=ttyS0 ' + o.append,
                           verify=o.verify, extra=o.extra)
        guest = Guest(cmd)
        try:
            guest.expect(rb'ringlet guest ready', o.timeout)
            guest.expect(rb'guest# ', o.timeout)
            guest.send('stty cols 500\n') # so that the shell's line editor does not fold what we type
            guest.expect(rb'guest# ', o.timeout)
            print('\n[a shell after %.1f s]' % (time.monotonic() - guest.started))
            if o.vmm == 'ringlet':
                check_resident(guest)
            if not o.only_shell:
                check_commands(guest, o)
                if o.program:
                    check_programs(guest, o)
            check_memory(guest, o)
            check_log(guest, o)
            if o.load:
                check_clocks(guest, o)
            guest.send('poweroff -f\n')
            status = guest.finish(o.timeout / 4)
            require(status == 0, 'exit status %d after power-off' % status)
            print('\n[off after %.1f s]' % (time.monotonic() - guest.started))
        finally:
            sys.stderr.write(guest.errors())
            guest.kill()


def boot_to_file(o):
    """No terminal at all: the guest's init runs a command line and switches off."""
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, 'serial')
        script = os.path.join(directory, 'unattended')
        with open(script, 'w') as f:
            f.write('#!/bin/busybox sh\n/bin/busybox echo "answer: $((6*7))"\n/bin/busybox poweroff -f\n')
        cmd = command_line(o.vmm, o.ringlet, o.engine, o.memory, kernel=guest_file('vmlinuz-' + o.kernel),
                           initrd=initrd_with([script], directory), serial='file:' + out, verify=o.verify,
                           append='console=ttyS0 rdinit=/bin/unattended ' + o.append, extra=o.extra)
        guest = Guest(cmd)
        try:
            status = guest.finish(o.timeout)
            text = open(out, 'rb').read().decode('latin-1')
            sys.stdout.write(text.replace('\r', ''))
            require(status == 0, 'exit status %d after power-off' % status)
            require('Linux version' in text and 'answer: 42' in text, 'the file lacks the console output')
            require(b'Linux version' not in guest.text, 'the console output went to the terminal as well')
        finally:
            sys.stderr.write(guest.errors())
            guest.kill()


MACH_LINES = ['GNU Mach', 'biosmem: physical memory map:', 'vm_page: page table size', 'vm_page: DMA: pages',
              'vm_page: DIRECTMAP: pages', 'RTC time is', 'No bootstrap code loaded']


def mach_log(o, vmm):
    """What GNU Mach prints up to the panic it ends with when it has no bootstrap program."""
    guest = Guest(command_line(vmm, o.ringlet, o.engine, o.memory, multiboot=guest_file('gnumach'),
                               append='console=com0', verify=o.verify and vmm != 'qemu', extra=o.extra))
    try:
        guest.expect(rb'panic.*No bootstrap code loaded[^\n]*\n', o.timeout)
        return guest.text.decode('latin-1').replace('\r', '')
    finally:
        sys.stderr.write(guest.errors())
        guest.kill()


def normalised(log):
    """The lines that do not depend on which disks and adapters a machine has, without addresses and amounts."""
    lines = [l for l in log.split('\n') if re.match(r'GNU Mach|vm_page:|RTC time|panic|biosmem: physical', l)]
    return [re.sub(r'\d+', 'N', l) for l in lines]


def boot_mach(o):
    ours = mach_log(o, o.vmm)
    for line in MACH_LINES:
        require(line in ours, 'GNU Mach did not print %r' % line)
    clock = re.search(r'RTC time is (\d+)-(\d+)-(\d+)', ours)
    require(clock and int(clock.group(1)) == time.gmtime().tm_year, 'GNU Mach reads a wrong year from the RTC')
    if o.vmm != 'qemu':
        theirs = mach_log(o, 'qemu')
        a, b = normalised(ours), normalised(theirs)
        require(a == b, 'not as under QEMU:\n%s\n--- QEMU:\n%s' % ('\n'.join(a), '\n'.join(b)))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('what', choices=['linux', 'file', 'mach'])
    a.add_argument('--vmm', choices=['ringlet', 'qemu'], default='ringlet')
    a.add_argument('--ringlet', default='build/monitor/ringlet')
    a.add_argument('--engine', choices=['bt', 'interp'], default='bt')
    a.add_argument('--verify', action='store_true', help='with the SFI verifier on')
    a.add_argument('--kernel', choices=['686', '686-pae'], default='686')
    a.add_argument('--memory', type=int, default=512, help='MiB')
    a.add_argument('--append', default='', help='more kernel command line')
    a.add_argument('--program', action='append', default=[], help='Linux/i386 program to put into /bin and run (fpu)')
    a.add_argument('--forks', type=int, default=200)
    a.add_argument('--only-shell', action='store_true', help='reach the shell, look at memory and log, power off')
    a.add_argument('--load', type=int, default=0,
                   help='so many busy loops beside the guest; its clocks must not notice')
    a.add_argument('--timeout', type=float, default=120, help='seconds to reach the shell')
    a.add_argument('--extra', action='append', default=[], help='one more argument of the monitor')
    o = a.parse_args()
    try:
        {'linux': boot_linux, 'file': boot_to_file, 'mach': boot_mach}[o.what](o)
    except Trouble as t:
        print('\nfailed: %s' % t)
        sys.exit(1)
    print('passed')


if __name__ == '__main__':
    main()
