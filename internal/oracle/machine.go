package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"uvs/internal/conformance"
)

//go:embed shim/xstate.c
var shimSource string

const (
	kernelBinary = "/usr/bin/linux.uml"
	memoryMB     = 192
	bootTimeout  = 2 * time.Minute
	replyTimeout = time.Minute
)

// tools are the host-side parts that every machine uses: the guest's init and the library that is preloaded.
type tools struct{ dir, guest, shim string }

// buildTools compiles them into dir.
func buildTools(ctx context.Context, dir string) (*tools, error) {
	t := &tools{dir: dir, guest: filepath.Join(dir, "guest"), shim: filepath.Join(dir, "xstate.so")}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", t.guest, "uvs/internal/oracle/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	source := filepath.Join(dir, "xstate.c")
	if err := os.WriteFile(source, []byte(shimSource), 0o644); err != nil {
		return nil, err
	}
	for _, c := range []*exec.Cmd{build, exec.CommandContext(ctx, "gcc", "-O2", "-shared", "-fPIC", "-o", t.shim, source)} {
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out)
		}
	}
	return t, nil
}

// machine is a running kernel with the real ip_vs, two wires and a terminal to its init.
type machine struct {
	process *exec.Cmd
	dir     string
	control net.Conn
	replies *bufio.Reader
	wires   [2]*net.UnixConn
	frames  chan arrival
	pings   uint16
}

// arrival is a frame that came out of the machine, or the end of a wire.
type arrival struct {
	wire  int
	frame []byte
	err   error
}

// request and reply are the guest's.
type request struct {
	Argv  []string `json:"argv,omitempty"`
	Stdin string   `json:"stdin,omitempty"`
	Read  string   `json:"read,omitempty"`
	Word  string   `json:"word,omitempty"`
}

type reply struct {
	Status int    `json:"status"`
	Out    string `json:"out"`
	Err    string `json:"err"`
}

// boot starts a machine in the recorded topology.
func boot(t *tools) (m *machine, err error) {
	m = &machine{frames: make(chan arrival, 1<<12)}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.dir, err = os.MkdirTemp(t.dir, "machine-"); err != nil {
		return nil, err
	}
	var listeners [2]*net.UnixListener
	args := []string{fmt.Sprintf("mem=%dM", memoryMB), "rootfstype=hostfs", "ro", "quiet", "init=" + t.guest, "con=null", "con0=null,fd:1",
		"con1=fd:3", "ssl=null", "uml_dir=" + m.dir, "umid=u"}
	for i, mac := range conformance.DirectorMACs() {
		path := filepath.Join(m.dir, fmt.Sprintf("wire%d", i))
		if listeners[i], err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
			return nil, err
		}
		defer listeners[i].Close()
		args = append(args, fmt.Sprintf("vec%d:transport=bess,dst=%s,mac=%s,mtu=1500", i, path, mac))
	}
	if err := m.start(t, args); err != nil {
		return nil, err
	}
	r, err := m.answer(bootTimeout)
	if err != nil {
		return nil, err
	}
	if r.Status != 0 {
		return nil, fmt.Errorf("modprobe: %s", r.Err)
	}
	// An interface connects its wire when it is set up.
	if err := m.shell(setUp); err != nil {
		return nil, err
	}
	for i, l := range listeners {
		if err := l.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
			return nil, err
		}
		if m.wires[i], err = l.AcceptUnix(); err != nil {
			return nil, err
		}
		go m.listen(i)
	}
	_, err = m.barrier()
	return m, err
}

// start runs the kernel with its console in a file and its first terminal on a socket.
func (m *machine) start(t *tools, args []string) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "terminal")
	defer ours.Close()
	defer theirs.Close()
	if m.control, err = net.FileConn(ours); err != nil {
		return err
	}
	m.replies = bufio.NewReader(m.control)
	console, err := os.Create(m.console())
	if err != nil {
		return err
	}
	defer console.Close()
	memory := m.dir // the file that is the machine's memory: faster where no disk is behind it
	var fs syscall.Statfs_t
	if syscall.Statfs("/dev/shm", &fs) == nil && int64(fs.Bavail)*fs.Bsize > memoryMB<<21 {
		memory = "/dev/shm"
	}
	m.process = exec.Command(kernelBinary, args...)
	m.process.Dir = m.dir
	m.process.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LD_PRELOAD=" + t.shim, "TMPDIR=" + memory}
	m.process.Stdout, m.process.Stderr = console, console
	m.process.ExtraFiles = []*os.File{theirs}
	m.process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.process.Start(); err != nil {
		m.process = nil
		return fmt.Errorf("start %s: %w", kernelBinary, err)
	}
	return nil
}

func (m *machine) console() string { return filepath.Join(m.dir, "console") }

// close ends the machine and removes its files.
func (m *machine) close() {
	if m.process != nil {
		_ = syscall.Kill(-m.process.Process.Pid, syscall.SIGKILL) // its session: it and the processes that it traces
		_ = m.process.Wait()
	}
	if m.control != nil {
		_ = m.control.Close()
	}
	for _, w := range m.wires {
		if w != nil {
			_ = w.Close()
		}
	}
	_ = os.RemoveAll(m.dir)
}

// setUp makes the machine the director of the recorded topology.
const setUp = `set -e
cd /proc/sys/net/ipv4
echo 1 >ip_forward
for i in conf/*; do echo 0 >$i/rp_filter; echo 0 >$i/send_redirects; done
echo 0 >icmp_ratelimit; echo 100000 >icmp_msgs_per_sec; echo 100000 >icmp_msgs_burst
for i in vec0 vec1; do
	ip link set $i addrgenmode none
	cd /proc/sys/net/ipv6/conf/$i
	echo 0 >accept_dad; echo 0 >router_solicitations; echo 0 >disable_ipv6
done
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
ip link set lo up
for a in 10.9.0.1/24 10.9.0.100/32 10.9.0.101/32 10.9.0.102/32; do ip addr add $a dev vec0; done
ip addr add 10.1.0.1/24 dev vec1
ip route add local 198.18.0.0/15 dev lo table local
ip link set vec0 up
ip link set vec1 up
ip neigh replace 10.9.0.254 lladdr 02:00:00:00:09:fe dev vec0 nud permanent
ip route add default via 10.9.0.254
ip neigh replace 10.1.0.250 lladdr 02:00:00:00:01:fa dev vec1 nud permanent
ip route add 10.2.0.0/16 via 10.1.0.250
for a in 1/64 100/128 101/128 102/128; do ip addr add 2001:db8:9::$a dev vec0 nodad; done
ip addr add 2001:db8:1::1/64 dev vec1 nodad
n=1
while [ $n -le 24 ]; do
	ip addr add 2001:db8:aaaa::$n/128 dev vec0 nodad
	n=$((n + 1))
done
ip neigh replace 2001:db8:9::fe lladdr 02:00:00:00:09:fe dev vec0 nud permanent
ip -6 route add default via 2001:db8:9::fe dev vec0
n=11
while [ $n -le 30 ]; do
	ip neigh replace 10.1.0.$n lladdr 02:00:00:00:01:$(printf %02x $n) dev vec1 nud permanent
	ip neigh replace 2001:db8:1::$n lladdr 02:00:00:00:01:$(printf %02x $n) dev vec1 nud permanent
	n=$((n + 1))
done`

// ask has the guest do something.
func (m *machine) ask(q request) (reply, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	if _, err := m.control.Write(append(b, '\n')); err != nil {
		return reply{}, err
	}
	return m.answer(replyTimeout)
}

// answer reads the guest's next reply.
func (m *machine) answer(timeout time.Duration) (r reply, err error) {
	if err := m.control.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return r, err
	}
	line, err := m.replies.ReadString('\n')
	if err != nil {
		console, _ := os.ReadFile(m.console())
		return r, fmt.Errorf("the machine doesn't answer: %w; the end of its console:\n%s", err, console[max(0, len(console)-2000):])
	}
	if i := strings.IndexByte(line, '{'); i >= 0 {
		line = line[i:]
	}
	return r, json.Unmarshal([]byte(line), &r)
}

// shell runs a script that must succeed.
func (m *machine) shell(script string) error {
	r, err := m.ask(request{Argv: []string{"sh", "-c", script}})
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("status %d of %q: %s", r.Status, script, r.Err)
	}
	return err
}

// read is the first line of a file of the machine and those lines that have a word.
func (m *machine) read(path, word string) (string, error) {
	r, err := m.ask(request{Read: path, Word: word})
	if err == nil && r.Status != 0 {
		err = errors.New(r.Err)
	}
	return r.Out, err
}

// listen takes what comes out on a wire until it is closed.
func (m *machine) listen(wire int) {
	b := make([]byte, 1<<16)
	for {
		n, err := m.wires[wire].Read(b)
		if err != nil {
			m.frames <- arrival{wire: wire, err: err}
			return
		}
		m.frames <- arrival{wire: wire, frame: append([]byte(nil), b[:n]...)}
	}
}

// inject sends a frame into a wire and returns all that came out because of it.
func (m *machine) inject(wire int, frame []byte) ([]conformance.Sent, error) {
	if _, err := m.wires[wire].Write(frame); err != nil {
		return nil, err
	}
	out, err := m.barrierOn(wire)
	if err != nil {
		return nil, err
	}
	more, err := m.barrierOn(1 - wire)
	return append(out, more...), err
}

// barrier returns what the machine has sent so far.
func (m *machine) barrier() ([]conformance.Sent, error) {
	out, err := m.barrierOn(0)
	if err != nil {
		return nil, err
	}
	more, err := m.barrierOn(1)
	return append(out, more...), err
}

// barrierOn has the machine answer an ARP request on a wire. The machine takes frames in order, so that what came before the
// request is done with when the answer is there. Frames on the other wire may still be on their way.
func (m *machine) barrierOn(wire int) ([]conformance.Sent, error) {
	m.pings++
	asker := [6]byte{2, 0xba, byte(m.pings >> 8), byte(m.pings), 0, byte(wire)}
	net := [2]byte{9, 1}[wire]
	from, to := netip.AddrFrom4([4]byte{10, net, 0, 253}), netip.AddrFrom4([4]byte{10, net, 0, 1})
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, asker[:]...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // ARP: Ethernet, IPv4, a request
	f = append(append(f, asker[:]...), from.AsSlice()...)
	f = append(append(f, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
	f = append(f, make([]byte, 60-len(f))...)
	if _, err := m.wires[wire].Write(f); err != nil {
		return nil, err
	}
	var out []conformance.Sent
	for timeout := time.After(replyTimeout); ; {
		select {
		case a := <-m.frames:
			switch {
			case a.err != nil:
				return nil, fmt.Errorf("wire %d: %w", a.wire, a.err)
			case len(a.frame) < 14:
			case binary.BigEndian.Uint16(a.frame[12:]) == 0x0806:
				if a.wire == wire && [6]byte(a.frame[:6]) == asker {
					return out, nil
				}
			case !conformance.Neighbourhood(a.frame):
				out = append(out, conformance.Sent{Wire: a.wire, Frame: a.frame})
			}
		case <-timeout:
			return nil, fmt.Errorf("wire %d: the machine doesn't answer ARP", wire)
		}
	}
}
