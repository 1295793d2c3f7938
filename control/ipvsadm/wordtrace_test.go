package ipvsadm

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"uvs/control/api"
)

// tracer is a backend with events to tell; then it goes on until its context ends, or ends by itself.
type tracer struct {
	*kernel
	asked  *api.TraceRequest
	events []api.TraceEvent
	goOn   bool
}

// Trace implements api.Backend.
func (b *tracer) Trace(ctx context.Context, r *api.TraceRequest, begun func() error, yield func(*api.TraceEvent) error) error {
	b.asked = r
	if err := begun(); err != nil {
		return err
	}
	for i := range b.events {
		if err := yield(&b.events[i]); err != nil {
			return err
		}
	}
	if b.goOn {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func traced() []api.TraceEvent {
	conn := &api.Connection{Protocol: api.TCP, Client: netip.MustParseAddrPort("198.51.100.7:40000"), Virtual: netip.MustParseAddrPort("192.0.2.100:80"),
		Server: netip.MustParseAddrPort("10.0.0.12:8080"), State: "SYN_RECV"}
	return []api.TraceEvent{
		{Time: time.Unix(1_700_000_000, 123_456_789).UTC(), Verdict: "forwarded-nat", Meaning: "to real server 10.0.0.12:8080 by NAT", Connection: conn, Opened: true,
			In:  &api.TraceFrame{Interface: "eth0", Summary: "tcp 198.51.100.7:40000 > 192.0.2.100:80 S", Length: 74, Data: []byte("frame in, seven")},
			Out: []api.TraceFrame{{Interface: "eth1", Summary: "tcp 198.51.100.7:40000 > 10.0.0.12:8080 S", Length: 74, Data: []byte("frame out")}}},
		{Missed: 2},
		{Missed: 1, Time: time.Unix(1_700_000_001, 0).UTC(), Verdict: "replied", Meaning: "real server 10.0.0.12:8080's answer, sent on in the service's name",
			Connection: conn, Waited: true,
			In: &api.TraceFrame{Interface: "eth1", Summary: "tcp 10.0.0.12:8080 > 198.51.100.7:40000 P.", Length: 3000, SegmentSize: 1448, Data: []byte("x")},
			Out: []api.TraceFrame{{Interface: "eth0", Summary: "tcp 192.0.2.100:80 > 198.51.100.7:40000 .", Length: 1514, Data: []byte("y")},
				{Interface: "eth0", Summary: "tcp 192.0.2.100:80 > 198.51.100.7:40000 P.", Length: 1500, Data: []byte("z")}}},
		{Time: time.Unix(1_700_000_002, 0).UTC(), Verdict: "arp-not-ours", Meaning: "left alone: ARP about addresses that aren't ours",
			In: &api.TraceFrame{Interface: "eth0", Summary: "arp who has 192.0.2.1, tell 192.0.2.2", Length: 60, Data: []byte("arp")}},
	}
}

// traceWord runs the word trace.
func traceWord(t *testing.T, b *tracer, line string) (exit int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := Program{Name: "uvsadm", Backend: b, Stdout: &stdout, Stderr: &stderr, Zone: time.UTC}
	exit = p.runWord(context.Background(), append([]string{"trace"}, strings.Fields(line)...))
	return exit, stdout.String(), stderr.String()
}

func TestTracePrintsFramesAndWhatBecomesOfThem(t *testing.T) {
	exit, out, errs := traceWord(t, &tracer{kernel: newKernel(), events: traced()}, "--client 198.51.100.7")
	want := `#1 22:13:20.123456 eth0 in  tcp 198.51.100.7:40000 > 192.0.2.100:80 S, 74 bytes
    forwarded-nat: to real server 10.0.0.12:8080 by NAT; opens tcp 198.51.100.7:40000 to 192.0.2.100:80 at 10.0.0.12:8080, SYN_RECV
    eth1 out tcp 198.51.100.7:40000 > 10.0.0.12:8080 S, 74 bytes
#2 22:13:21.000000 eth1 in  tcp 10.0.0.12:8080 > 198.51.100.7:40000 P., 3000 bytes in segments of 1448
    replied: real server 10.0.0.12:8080's answer, sent on in the service's name, after it waited for the next hop; of tcp 198.51.100.7:40000 to 192.0.2.100:80 at 10.0.0.12:8080, SYN_RECV
    eth0 out tcp 192.0.2.100:80 > 198.51.100.7:40000 ., 1514 bytes
    eth0 out tcp 192.0.2.100:80 > 198.51.100.7:40000 P., 1500 bytes
#3 22:13:22.000000 eth0 in  arp who has 192.0.2.1, tell 192.0.2.2, 60 bytes
    arp-not-ours: left alone: ARP about addresses that aren't ours
`
	if exit != 0 || out != want {
		t.Errorf("exit %d, printed\n%s\nwant\n%s", exit, out, want)
	}
	wantErrs := `uvsadm: tracing client 198.51.100.7; an interrupt ends it
uvsadm: 2 frames too many for the trace: not shown, though they went their way
uvsadm: 1 frame too many for the trace: not shown, though they went their way
uvsadm: 3 frames traced, 3 missed
`
	if errs != wantErrs {
		t.Errorf("said\n%s\nwant\n%s", errs, wantErrs)
	}
}

func TestTraceAsksForWhatItsOptionsSay(t *testing.T) {
	web := &api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	for line, want := range map[string]api.TraceRequest{
		"": {},
		"--client=198.51.100.7:40000 -t 192.0.2.100:80 --server 10.0.0.12": {Client: netip.MustParseAddrPort("198.51.100.7:40000"), Service: web,
			Server: netip.MustParseAddrPort("10.0.0.12:0")},
		"-u [2001:db8::1]:53 --verdict dropped,answered --verdict replied --interface eth1": {Interface: "eth1", Verdicts: []string{"dropped", "answered", "replied"},
			Service: &api.ServiceKey{Protocol: api.UDP, Address: netip.MustParseAddr("2001:db8::1"), Port: 53}},
		"--sctp 192.0.2.100":  {Service: &api.ServiceKey{Protocol: api.SCTP, Address: web.Address}},
		"-f 0x10":             {Service: &api.ServiceKey{FWMark: 16, Family: api.IPv4}},
		"-6 -f 7 --json -c 5": {Service: &api.ServiceKey{FWMark: 7, Family: api.IPv6}, Frames: true},
	} {
		b := &tracer{kernel: newKernel()}
		if exit, _, errs := traceWord(t, b, line); exit != 0 || !reflect.DeepEqual(b.asked, &want) {
			t.Errorf("trace %s: exit %d %s, asked for %+v, want %+v", line, exit, errs, b.asked, want)
		}
	}
}

func TestTraceRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, line := range []string{
		"--client", "--client nobody", "--client ::ffff:1.2.3.4", "-t 192.0.2.100:80 -u 192.0.2.100:80", "-f 0", "-f x", "-6", "-c 0", "-c many",
		"--for -1s", "--for ever", "--json -w file", "--colour red", "eth0", "-w",
	} {
		b := &tracer{kernel: newKernel()}
		if exit, _, errs := traceWord(t, b, line); exit == 0 || errs == "" || b.asked != nil {
			t.Errorf("trace %s: exit %d, %q, asked for %+v", line, exit, errs, b.asked)
		}
	}
}

func TestTraceEnds(t *testing.T) {
	b := &tracer{kernel: newKernel(), events: traced(), goOn: true}
	if exit, out, errs := traceWord(t, b, "-c 2"); exit != 0 || strings.Count(out, "#") != 2 {
		t.Errorf("after two frames: exit %d, %s%s", exit, out, errs)
	}
	if exit, out, errs := traceWord(t, b, "--for 20ms"); exit != 0 || strings.Count(out, "#") != 3 {
		t.Errorf("after its time: exit %d, %s%s", exit, out, errs)
	}
}

func TestTraceInJSON(t *testing.T) {
	exit, out, _ := traceWord(t, &tracer{kernel: newKernel(), events: traced()[:1]}, "--json")
	want := `{"time":"2023-11-14T22:13:20.123456789Z","verdict":"forwarded-nat","meaning":"to real server 10.0.0.12:8080 by NAT",` +
		`"connection":{"protocol":"tcp","client":"198.51.100.7:40000","virtual":"192.0.2.100:80","server":"10.0.0.12:8080","state":"SYN_RECV","expiresSeconds":0},"opened":true,` +
		`"in":{"interface":"eth0","summary":"tcp 198.51.100.7:40000 \u003e 192.0.2.100:80 S","length":74,"data":"ZnJhbWUgaW4sIHNldmVu"},` +
		`"out":[{"interface":"eth1","summary":"tcp 198.51.100.7:40000 \u003e 10.0.0.12:8080 S","length":74,"data":"ZnJhbWUgb3V0"}]}` + "\n"
	if exit != 0 || out != want {
		t.Errorf("exit %d, printed\n%s\nwant\n%s", exit, out, want)
	}
}

func TestTraceWritesTheSameToAFileAndToItsOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.pcapng")
	if exit, out, errs := traceWord(t, &tracer{kernel: newKernel(), events: traced()}, "-w "+path); exit != 0 || out != "" {
		t.Fatalf("exit %d: %s%s", exit, out, errs)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if exit, out, _ := traceWord(t, &tracer{kernel: newKernel(), events: traced()}, "-w -"); exit != 0 || out != string(file) {
		t.Errorf("exit %d, %d bytes, the file has %d", exit, len(out), len(file))
	}
	if exit, _, errs := traceWord(t, &tracer{kernel: newKernel()}, "-w /nowhere/file"); exit == 0 || !strings.Contains(errs, "/nowhere/file") {
		t.Errorf("to a directory that there is not: exit %d, %s", exit, errs)
	}
}
