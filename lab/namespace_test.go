package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// here identifies the network namespace of the calling thread.
func here(t testing.TB) nsID {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(ownNetns, &st))
	return nsID{st.Dev, st.Ino}
}

// newLab makes an empty lab that goes with the test.
func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	l, err := New(o)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func newNamespace(t *testing.T, l *Lab, name string) *Namespace {
	t.Helper()
	ns, err := l.Namespace(name)
	must(t, err)
	return ns
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	l := newLab(t, Options{})
	a, b := newNamespace(t, l, "a"), newNamespace(t, l, "b")
	idA, err := a.id()
	must(t, err)
	idB, err := b.id()
	must(t, err)
	home := here(t)
	if home == idA || home == idB || idA == idB {
		t.Fatalf("namespaces are not apart: home %v, a %v, b %v", home, idA, idB)
	}
	sentinel := errors.New("sentinel")
	err = a.Do(func() error {
		if got := here(t); got != idA {
			t.Errorf("inside a: in %v, want %v", got, idA)
		}
		if err := b.Do(func() error {
			if got := here(t); got != idB {
				t.Errorf("inside b inside a: in %v, want %v", got, idB)
			}
			return nil
		}); err != nil {
			return err
		}
		if got := here(t); got != idA {
			t.Errorf("back from b: in %v, want %v", got, idA)
		}
		return sentinel
	})
	if !errors.Is(err, sentinel) {
		t.Errorf("Do() = %v, want the function's error", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		a.Do(func() error { panic("inside") })
	}()
	if got := here(t); got != home {
		t.Errorf("back home: in %v, want %v", got, home)
	}
	var none *Namespace
	must(t, none.Do(func() error {
		if got := here(t); got != home {
			t.Errorf("inside a nil namespace: in %v, want %v", got, home)
		}
		return nil
	}))
}

func TestManyVisitorsAtOnce(t *testing.T) {
	l := newLab(t, Options{})
	home := here(t)
	var spaces []*Namespace
	for i := range 4 {
		spaces = append(spaces, newNamespace(t, l, fmt.Sprint("n", i)))
	}
	var visitors sync.WaitGroup
	for i := range 40 {
		ns := spaces[i%len(spaces)]
		want, err := ns.id()
		must(t, err)
		visitors.Go(func() {
			for range 50 {
				if err := ns.Do(func() error {
					if got := here(t); got != want {
						t.Errorf("inside %s: in %v, want %v", ns, got, want)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				if got := here(t); got != home {
					t.Errorf("a goroutine at home is in %v, want %v", got, home)
				}
			}
		})
	}
	visitors.Wait()
}

func TestClosedLabRefusesEverything(t *testing.T) {
	l, err := New(Options{})
	must(t, err)
	ns := newNamespace(t, l, "a")
	must(t, l.Close())
	must(t, l.Close()) // twice is harmless
	for what, err := range map[string]error{
		"Do":        ns.Do(func() error { t.Error("Do ran its function"); return nil }),
		"Start":     ns.Command(t.Context(), os.Args[0]).Start(),
		"Sysctl":    ns.Sysctl("net/ipv4/ip_forward", "1"),
		"Namespace": func() error { _, err := l.Namespace("b"); return err }(),
	} {
		if !errors.Is(err, errClosed) {
			t.Errorf("%s after Close: %v, want %v", what, err, errClosed)
		}
	}
}

func TestErrorsNameTheHost(t *testing.T) {
	l := newLab(t, Options{})
	ns := newNamespace(t, l, "rs7")
	_, dialErr := ns.Dial("tcp", "www.example.org:80")
	_, listenErr := ns.Listen("tcp", "10.1.2.3:80")
	_, captureErr := ns.Capture("eth9")
	for what, err := range map[string]error{
		"Dial by name": dialErr, "Listen elsewhere": listenErr, "Capture of nothing": captureErr,
		"Sysctl": ns.Sysctl("net/ipv4/no_such_thing", "1"), "SetUp": ns.SetUp("eth9", true),
		"SetOffloads": ns.SetOffloads("eth9", true), "Start": ns.Command(t.Context(), "/no/such/program").Start(),
	} {
		if err == nil || !strings.Contains(err.Error(), "rs7") {
			t.Errorf("%s: %v; want an error that names rs7", what, err)
		}
	}
}

func TestCloseRemovesLinksEvenWhereASocketKeepsTheNamespace(t *testing.T) {
	topo, err := NewDR(Config{})
	must(t, err)
	client := topo.Clients[0]
	capture, err := client.Capture("eth0")
	must(t, err)
	conn, err := client.ListenPacket("udp", client.Addr().String()+":0") // stays open
	must(t, err)
	defer conn.Close()
	fd, err := unix.FcntlInt(uintptr(client.fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	revisit := &Namespace{name: "client1", fd: fd}
	defer unix.Close(fd)
	must(t, topo.Close())
	must(t, revisit.Do(func() error {
		dev, err := os.ReadFile("/proc/thread-self/net/dev")
		if strings.Contains(string(dev), "eth0") {
			t.Errorf("eth0 is still there after Close:\n%s", dev)
		}
		return err
	}))
	if capture.Stop(); capture.Err() != nil {
		t.Errorf("capture ended by Close: %v", capture.Err())
	}
}

// seenThrough runs a command line's beginning with a look at the interfaces it leads to.
func seenThrough(t *testing.T, enter string) string {
	t.Helper()
	out, err := exec.CommandContext(shortly(t), "sh", "-c", enter+" cat /proc/net/dev").CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", enter, err, out)
	}
	return string(out)
}

// roleEntrances raises an anonymous and a named lab in a user namespace of its own, prints the commands that enter
// their switches and waits for its standard input's end.
func roleEntrances() int {
	if err := Reexec(true); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, named := range []bool{false, true} {
		topo, err := NewDR(Config{Named: named})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer topo.Close()
		fmt.Println(topo.Switch.EnterCommand())
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestEnterCommandLeadsInside(t *testing.T) {
	var commands []string
	if !inUserNamespace() { // in one, the command is for a shell outside
		for _, named := range []bool{false, true} {
			topo := DR(t, Config{Named: named})
			commands = append(commands, topo.Switch.EnterCommand())
			if path := topo.Switch.Path(); named != (path != "") {
				t.Errorf("named %v: Path() = %q", named, path)
			}
		}
	}
	other := exec.CommandContext(t.Context(), os.Args[0])
	asRole(other, "entrances")
	other.Stderr = os.Stderr
	stdin, err := other.StdinPipe()
	must(t, err)
	stdout, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	lines := bufio.NewReader(stdout)
	for range 2 {
		line, err := lines.ReadString('\n')
		must(t, err)
		commands = append(commands, strings.TrimSpace(line))
	}
	for _, enter := range commands {
		if got := seenThrough(t, enter); !strings.Contains(got, "client1-eth0") {
			t.Errorf("%s leads to\n%s", enter, got)
		}
	}
	stdin.Close()
	must(t, other.Wait())
}
