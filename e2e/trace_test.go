package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"uvs/lab"
)

// tracer is a running uvsadm trace.
type tracer struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr logBuffer
	over   chan error
}

// trace starts uvsadm trace and waits until it has begun.
func (r *rig) trace(t *testing.T, args ...string) *tracer {
	t.Helper()
	tr := &tracer{t: t, over: make(chan error, 1)}
	tr.cmd = exec.Command(program("uvsadm"), append([]string{"--socket", r.socket, "trace"}, args...)...)
	tr.cmd.Stdout, tr.cmd.Stderr = &tr.stdout, &tr.stderr
	must(t, tr.cmd.Start())
	go func() { tr.over <- tr.cmd.Wait() }()
	t.Cleanup(func() { tr.cmd.Process.Kill() })
	eventually(t, "uvsadm trace has begun", func() (bool, any) {
		said := tr.stderr.String()
		return strings.Contains(said, "tracing"), said
	})
	return tr
}

// end interrupts the trace, or waits for its own end, and returns what it printed.
func (tr *tracer) end(interrupt bool) string {
	tr.t.Helper()
	if interrupt {
		must(tr.t, tr.cmd.Process.Signal(os.Interrupt))
	}
	select {
	case err := <-tr.over:
		if err != nil {
			tr.t.Fatalf("uvsadm trace: %v\n%s", err, &tr.stderr)
		}
	case <-time.After(20 * time.Second):
		tr.t.Fatalf("uvsadm trace goes on\n%s", &tr.stderr)
	}
	if !strings.Contains(tr.stderr.String(), ", 0 missed") {
		tr.t.Errorf("uvsadm trace missed something:\n%s", &tr.stderr)
	}
	return tr.stdout.String()
}

// tracedFrame is a frame of a capture file, as tshark reads it.
type tracedFrame struct {
	iface, comment string
	in             bool
	data           []byte
}

// readTrace reads a file of uvsadm trace by tshark.
func readTrace(t *testing.T, path string) (frames []tracedFrame) {
	t.Helper()
	out, err := exec.Command("tshark", "-n", "-r", path, "-T", "fields", "-E", "separator=/t",
		"-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "frame.comment").Output()
	if err != nil {
		t.Fatalf("tshark: %v %s", err, stderrOf(err))
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 3 {
			t.Fatalf("tshark says %q of a frame", line)
		}
		direction, err := strconv.ParseUint(f[1], 0, 8)
		must(t, err)
		frames = append(frames, tracedFrame{iface: f[0], comment: f[2], in: direction == 1})
	}
	raw, err := exec.Command("tshark", "-n", "-r", path, "-F", "nsecpcap", "-w", "-").Output()
	if err != nil {
		t.Fatalf("tshark: %v %s", err, stderrOf(err))
	}
	r, err := pcapgo.NewReader(bytes.NewReader(raw))
	must(t, err)
	for i := range frames {
		data, _, err := r.ReadPacketData()
		must(t, err)
		frames[i].data = data
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Fatalf("more than %d frames: %v", len(frames), err)
	}
	return frames
}

func stderrOf(err error) string {
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		return string(e.Stderr)
	}
	return ""
}

var ofFrame = regexp.MustCompile(`^of frame (\d+)$`)

// A trace of everything, read by tshark, has every frame that the director's interfaces received and sent for the service,
// byte for byte, and says of each what became of it or which frame it is of.
func TestTraceIsWhatTheWireSaw(t *testing.T) {
	needs(t, "tshark", "tshark")
	methods(t, func(t *testing.T, cfg rigConfig) {
		cfg.OffloadsOff = true // so that no checksum is left open where the frames are captured
		r := newRig(t, cfg)
		r.count(2) // so that no next hop is asked for later
		path := filepath.Join(t.TempDir(), "trace.pcapng")
		tr := r.trace(t, "-w", path, "-t", r.VIP().String()+":80", "--client", r.Clients[0].Addr().String())
		stop := r.captureDirector()
		r.count(4)
		r.awaitQuiet()
		wires := stop()
		tr.end(true)
		frames := readTrace(t, path)
		if len(frames) == 0 {
			t.Fatal("the trace is empty")
		}
		r.checkComments(frames)
		for i, leg := range r.Directors[0].Legs {
			var in, out, wantIn, wantOut []string
			for _, f := range frames {
				switch {
				case f.iface != leg.Name:
				case f.in:
					in = append(in, fmt.Sprintf("%x", f.data))
				default:
					out = append(out, fmt.Sprintf("%x", f.data))
				}
			}
			for _, w := range wires[i] {
				switch {
				case !r.isTraced(w):
				case w.Out:
					wantOut = append(wantOut, fmt.Sprintf("%x", w.Data))
				default:
					wantIn = append(wantIn, fmt.Sprintf("%x", w.Data))
				}
			}
			compareFrames(t, leg.Name+", received", in, wantIn)
			compareFrames(t, leg.Name+", sent", out, wantOut)
		}
	})
}

// isTraced says that a frame is of the web service, or of a tunnel to it.
func (r *rig) isTraced(w wire) bool {
	const protoIPIP = 4
	return w.proto == protoTCP || r.tunnel && w.proto == protoIPIP
}

func compareFrames(t *testing.T, what string, got, want []string) {
	t.Helper()
	count := map[string]int{}
	for _, f := range got {
		count[f]++
	}
	for _, f := range want {
		count[f]--
	}
	for f, n := range count {
		if n != 0 {
			t.Errorf("%s: %d times more in the trace than on the wire: %s", what, n, f)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d frames traced, %d on the wire", what, len(got), len(want))
	}
}

// checkComments checks that every frame that came in says what became of it and every other which it is of.
func (r *rig) checkComments(frames []tracedFrame) {
	r.t.Helper()
	opened := 0
	for i, f := range frames {
		if f.in {
			if !strings.HasPrefix(f.comment, "forwarded-") && !strings.HasPrefix(f.comment, "replied: ") || !strings.Contains(f.comment, r.VIP().String()+":80 at ") {
				r.t.Errorf("frame %d came in with the comment %q", i+1, f.comment)
			}
			if strings.Contains(f.comment, "; opens tcp ") {
				opened++
			}
			continue
		}
		m := ofFrame.FindStringSubmatch(f.comment)
		if m == nil {
			r.t.Errorf("frame %d went out with the comment %q", i+1, f.comment)
			continue
		}
		if n, _ := strconv.Atoi(m[1]); n < 1 || n > i || !frames[n-1].in {
			r.t.Errorf("frame %d is of frame %d, which isn't one that came in before", i+1, n)
		}
	}
	if opened != 4 {
		r.t.Errorf("%d frames opened connections, want 4", opened)
	}
}

func TestTraceAsText(t *testing.T) {
	r := newRig(t, rigConfig{NAT: true})
	r.count(2)
	refused := r.trace(t, "--verdict", "answered-reset", "-c", "1")
	all := r.trace(t, "-t", r.VIP().String()+":80", "--for", "20s", "-c", "5")
	if _, err := lab.CountHTTP(shortly(t), r.client(), fmt.Sprintf("http://%v:81/", r.VIP()), 1); err == nil {
		t.Error("a port without service answers")
	}
	r.count(1)
	text := refused.end(false)
	want := regexp.MustCompile(fmt.Sprintf(`^#1 \d\d:\d\d:\d\d\.\d{6} eth0 in  tcp %v:\d+ > %v:81 S, \d+ bytes\n`+
		`    answered-reset: refused with a TCP reset: it belongs to no connection and cannot open one\n`+
		`    eth0 out tcp %v:81 > %v:\d+ R\., \d+ bytes\n$`, r.Clients[0].Addr(), r.VIP(), r.VIP(), r.Clients[0].Addr()))
	if !want.MatchString(text) {
		t.Errorf("the refused connection is told as\n%s\nwant\n%v", text, want)
	}
	text = all.end(false)
	syn := regexp.MustCompile(fmt.Sprintf(`^#1 \S+ eth0 in  tcp %v:\d+ > %v:80 S, \d+ bytes\n`+
		`    forwarded-nat: to real server \S+:8080 by NAT; opens tcp %v:\d+ to %v:80 at \S+:8080, SYN_RECV\n`+
		`    eth1 out tcp %v:\d+ > \S+:8080 S, \d+ bytes\n#2 \S+ eth1 in .*\n    replied: `,
		r.Clients[0].Addr(), r.VIP(), r.Clients[0].Addr(), r.VIP(), r.Clients[0].Addr()))
	if !syn.MatchString(text) || strings.Count(text, "#") != 5 {
		t.Errorf("the connection is told as\n%s\nwant\n%v", text, syn)
	}
}
