// Package uml boots Debian's kernel for user-mode Linux, which has modules that the machine's own kernel may lack: the real
// ip_vs, SCTP. Its root is the machine's, read only, so that it has the same programs; its interfaces are wires or taps of ours.
package uml

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed shim/xstate.c
var shimSource string

const (
	kernelBinary = "/usr/bin/linux.uml" // of Debian's user-mode-linux
	memoryMB     = 192
	bootTimeout  = 2 * time.Minute
	replyTimeout = time.Minute
)

// Tools are the host-side parts that every machine uses: the guest's init and the library that is preloaded.
type Tools struct{ dir, guest, shim string }

// Build compiles them into dir, where the machines' files will be too. It needs go and gcc.
func Build(ctx context.Context, dir string) (*Tools, error) {
	t := &Tools{dir: dir, guest: filepath.Join(dir, "guest"), shim: filepath.Join(dir, "xstate.so")}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", t.guest, "uvs/lab/uml/guest")
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

// Config says what a machine has.
type Config struct {
	Modules []string // of the kernel, loaded before Boot returns
	Devices []string // vec0, vec1...: results of Wire and Tap
	// Start starts the kernel's process, in another network namespace for one. Default (*exec.Cmd).Start.
	Start func(*exec.Cmd) error
}

// Wire is an interface whose frames go to a unixpacket socket that listens at path, a message each. It connects when it is set
// up.
func Wire(path string, mac net.HardwareAddr) string {
	return fmt.Sprintf("transport=bess,dst=%s,mac=%s,mtu=1500", path, mac)
}

// Tap is an interface that is a tap device's other end. The device must be there, in the network namespace of the kernel's
// process, before the interface is set up, and must be up: at the first frame that a tap refuses the interface falls silent.
func Tap(ifname string, mac net.HardwareAddr) string {
	return fmt.Sprintf("transport=tap,ifname=%s,mac=%s,mtu=1500", ifname, mac)
}

// Machine is a running kernel and a terminal to its init.
type Machine struct {
	process *exec.Cmd
	dir     string
	control net.Conn
	replies *bufio.Reader
}

// Request is one thing for the guest to do: run a program with an input, or read a file: its first line and those that have a
// word, because the terminal is slow. A file with a text to await is read when it has it, or after half a minute.
type Request struct {
	Argv  []string `json:"argv,omitempty"`
	Stdin string   `json:"stdin,omitempty"`
	Read  string   `json:"read,omitempty"`
	Word  string   `json:"word,omitempty"`
	Await string   `json:"await,omitempty"`
}

// Reply is what came of it; Status is -1 where the guest itself failed, and Err says how.
type Reply struct {
	Status int    `json:"status"`
	Out    string `json:"out"`
	Err    string `json:"err"`
}

// Boot starts a machine.
func Boot(t *Tools, cfg Config) (m *Machine, err error) {
	m = new(Machine)
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.dir, err = os.MkdirTemp(t.dir, "machine-"); err != nil {
		return nil, err
	}
	args := []string{fmt.Sprintf("mem=%dM", memoryMB), "rootfstype=hostfs", "ro", "quiet", "init=" + t.guest, "con=null", "con0=null,fd:1",
		"con1=fd:3", "ssl=null", "uml_dir=" + m.dir, "umid=u",
		"UVS_MODULES=" + strings.Join(cfg.Modules, ",")} // what the kernel doesn't know is for init's environment
	for i, d := range cfg.Devices {
		args = append(args, fmt.Sprintf("vec%d:%s", i, d))
	}
	start := cfg.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := m.start(t, args, start); err != nil {
		return nil, err
	}
	r, err := m.answer(bootTimeout)
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("modprobe: %s", r.Err)
	}
	return m, err
}

// start runs the kernel with its console in a file and its first terminal on a socket.
func (m *Machine) start(t *Tools, args []string, start func(*exec.Cmd) error) error {
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
	if err := start(m.process); err != nil {
		m.process = nil
		return fmt.Errorf("start %s: %w", kernelBinary, err)
	}
	return nil
}

func (m *Machine) console() string { return filepath.Join(m.dir, "console") }

// Close ends the machine and removes its files.
func (m *Machine) Close() {
	if m.process != nil {
		_ = syscall.Kill(-m.process.Process.Pid, syscall.SIGKILL) // its session: it and the processes that it traces
		_ = m.process.Wait()
	}
	if m.control != nil {
		_ = m.control.Close()
	}
	_ = os.RemoveAll(m.dir)
}

// Ask has the guest do something.
func (m *Machine) Ask(q Request) (Reply, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return Reply{}, err
	}
	if _, err := m.control.Write(append(b, '\n')); err != nil {
		return Reply{}, err
	}
	return m.answer(replyTimeout)
}

// answer reads the guest's next reply.
func (m *Machine) answer(timeout time.Duration) (r Reply, err error) {
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

// Shell runs a script that must succeed, and returns what it prints. It ends when the script has and all that it started has
// closed its output.
func (m *Machine) Shell(script string) (string, error) {
	r, err := m.Ask(Request{Argv: []string{"sh", "-c", script}})
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("status %d of %q: %s", r.Status, script, r.Err)
	}
	return r.Out, err
}

// Read is the first line of a file of the machine and those lines that have a word.
func (m *Machine) Read(path, word string) (string, error) {
	return m.read(Request{Read: path, Word: word})
}

// Await is a file of the machine when it has a text. An error says that it had not after half a minute.
func (m *Machine) Await(path, text string) (string, error) {
	out, err := m.read(Request{Read: path, Await: text})
	if err == nil && !strings.Contains(out, text) {
		err = fmt.Errorf("%s doesn't say %q but %q", path, text, out)
	}
	return out, err
}

func (m *Machine) read(q Request) (string, error) {
	r, err := m.Ask(q)
	if err == nil && r.Status != 0 {
		err = errors.New(r.Err)
	}
	return r.Out, err
}
