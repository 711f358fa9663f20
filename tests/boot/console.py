"""A guest on a pseudo-terminal: start it, expect text, run shell commands, see it end. Standard library only."""
import os, pty, re, select, shutil, struct, subprocess, sys, termios, time

PROMPT = b'guest# '


class Trouble(Exception):
    """The guest did not do what was expected; the message says what."""


def cache_dir():
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.environ.get('RINGLET_CACHE') or os.path.join(home, 'ringlet')


def cpio_newc(files):
    """An initramfs archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst): {name: bytes}."""
    out = b''
    for inode, (name, data) in enumerate(list(files.items()) + [('TRAILER!!!', b'')], 1000):
        fields = [inode, 0o100755 if data else 0, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        entry = b'070701' + b''.join(b'%08X' % f for f in fields) + name.encode() + b'\0'
        out += entry + b'\0' * (-len(entry) % 4) + data + b'\0' * (-len(data) % 4)
    return out


class Guest:
    """A virtual machine monitor whose first serial port is our terminal."""

    def __init__(self, command, stdin_tty=True, verbose=True):
        self.verbose = verbose
        self.text = b''   # all output so far
        self.seen = 0     # how much of it expect() has consumed
        self.command = command
        self.started = time.monotonic()
        self.master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[0] = attributes[1] = attributes[3] = 0  # raw: the guest echoes, not the host
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.stderr = os.memfd_create('stderr')
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=self.stderr, start_new_session=True)
        os.close(slave)

    def _read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        if self.verbose:
            sys.stdout.write(data.decode('latin-1').replace('\r', ''))
            sys.stdout.flush()
        self.text += data
        return bool(data)

    def expect(self, pattern, timeout):
        """Wait for a regular expression (bytes) in what has not been consumed; returns the match."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.text[self.seen:])
            if match:
                self.seen += match.end()
                return match
            if b'Kernel panic' in self.text[self.seen:] and b'panic' not in pattern:
                self._read(0.5)
                raise Trouble('the guest kernel panicked')
            if time.monotonic() > deadline:
                raise Trouble('no %r within %d s' % (pattern.decode('latin-1'), timeout))
            if not self._read(min(1, max(0, deadline - time.monotonic()))):
                status = self.process.wait()
                raise Trouble('the monitor ended (status %d) before %r' % (status, pattern.decode('latin-1')))

    def send(self, text):
        for i in range(0, len(text), 16):  # a 16550 has a FIFO of 16: what a user types, not a flood
            os.write(self.master, text[i:i + 16].encode())

    def shell(self, command, timeout=30):
        """Run a command at the prompt; returns (exit status, output)."""
        self.send(command + '; echo "<"$?">"\n')
        start = self.seen
        match = self.expect(rb'\r?\n?<(\d+)>\r?\n', timeout)
        text = self.text[start:self.seen - len(match.group(0))].decode('latin-1').replace('\r', '')
        text = re.sub('\x1b\\[[0-9;]*[A-Za-z]', '', text)
        self.expect(re.escape(PROMPT), timeout)
        return int(match.group(1)), text.split('\n', 1)[1] if '\n' in text else ''

    def finish(self, timeout):
        """Wait for the monitor's end; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Trouble('no end within %d s' % timeout)
            self._read(0.2)
        while self._read(0) and select.select([self.master], [], [], 0)[0]:
            pass
        return self.process.returncode

    def errors(self):
        size = os.fstat(self.stderr).st_size
        return os.pread(self.stderr, size, 0).decode('latin-1')

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def command_line(vmm, ringlet, engine, memory, kernel=None, initrd=None, append='', multiboot=None, serial='stdio',
                 verify=False, extra=()):
    """The same machine for ringlet and for QEMU."""
    if vmm == 'qemu':
        qemu = shutil.which('qemu-system-i386')
        if not qemu:
            print('skipped: qemu-system-i386 is not installed')
            sys.exit(77)
        cmd = [qemu, '-accel', 'tcg', '-cpu', 'max', '-m', str(memory), '-display', 'none', '-vga', 'none', '-net', 'none',
               '-no-reboot', '-monitor', 'none', '-serial', serial, '-kernel', kernel or multiboot]
        return cmd + (['-initrd', initrd] if initrd else []) + ['-append', append] + list(extra)
    cmd = [ringlet, 'run', '--memory', '%dM' % memory, '--serial', serial, '--no-reboot', '--engine', engine]
    cmd += ['--kernel', kernel] if kernel else ['--multiboot', multiboot]
    cmd += ['--initrd', initrd] if initrd else []
    return cmd + ['--append', append] + (['--verify'] if verify else []) + list(extra)
