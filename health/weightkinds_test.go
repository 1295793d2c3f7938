package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uvs/service"
)

// asks has p ask a server, and compares what it says, its beginning, and what share it gives; -1 is none.
func asks(t *testing.T, p Prober, to *Target, want string, share float64) {
	t.Helper()
	given := -1.0
	to.Weigh = func(f float64) { given = f }
	wants(t, p, to, want)
	if given != share {
		t.Errorf("%q gives a share of %v, want %v", want, given, share)
	}
}

func TestAgentCheck(t *testing.T) {
	reply, silent := "", errors.New("nobody there")
	var down error
	to := &Target{Server: netip.MustParseAddrPort("192.0.2.11:9777"), Dial: func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			_, _ = there.Write([]byte(reply))
		}()
		return here, down
	}}
	c := new(AgentCheck)
	say := func(line, want string, share float64) {
		t.Helper()
		reply = line
		asks(t, c, to, want, share)
	}
	say("", "no word from the agent: the agent closed", -1)
	say("up ready\n", "up ready", 1)
	say("up 90%\n", "up 90%", 1) // within the dead band
	say("drain\n", "drain", 0)
	say("up\n", "up", 0) // drain holds until it says ready
	say("up ready 40%", "up ready 40%, gets 40%", 0.4)
	say("maint\n", "down: the agent says maint", -1)
	say("down #disk\n", "down: the agent says down #disk", -1)
	say("HTTP/1.0 400 no\n", "no word from the agent", 0.4)
	say(strings.Repeat("x", 5000), "no word from the agent", 0.4)
	say("up 3%\n", "up 3%, gets 40%", 0.4) // averaged over ten seconds
	say("up 0%\n", "up 0%, gets 0%", 0)
	say("up ready\n", "up ready", 1)
	down = silent
	say("", "no word from the agent (nobody there): 100% as before", 1)
	asks(t, &AgentCheck{Required: true}, to, "down: nobody there", -1)
	for _, p := range []*AgentCheck{{Weighing: Weighing{Least: -1}}, {Weighing: Weighing{Least: 101}}} {
		refuses(t, p, "least")
	}
	refuses(t, &AgentCheck{Send: `\q`}, "send")
	refuses(t, &AgentCheck{Weighing: Weighing{Most: 1001}}, "most")
	refuses(t, &AgentCheck{Weighing: Weighing{Step: -1}}, "step")
	refuses(t, &AgentCheck{Weighing: Weighing{Smooth: -1}}, "smooth")
	refuses(t, &AgentCheck{Weighing: Weighing{DeadBand: 101}}, "deadband")
}

// An agent that dribbles or says nothing costs its timeout and no more.
func TestAgentCheckEndsInTime(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silence": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"dribble": func(c net.Conn) {
			for {
				if _, err := c.Write([]byte("u")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		said, err := prepared(t, &AgentCheck{Required: true}).Probe(ctx, answers(serve))
		if cancel(); err == nil {
			t.Errorf("%s: %q", name, said)
		}
	}
}

func TestKindsOfTheirOwnPort(t *testing.T) {
	for kind, port := range map[string]uint16{"agent": 9777, "snmp": 161, "tcp": 0} {
		s, err := FromWords(kind, nil)
		if err != nil || s.Port != port {
			t.Errorf("kind %s asks port %d, %v; want %d", kind, s.Port, err, port)
		}
	}
	if s, err := FromWords("agent", []string{"port=7", "least=20"}); err != nil || s.Port != 7 {
		t.Errorf("port=7: %v, %v", s, err)
	}
}

func TestWeightFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weights")
	f := &WeightFile{Path: path}
	a, b := &Target{Server: netip.MustParseAddrPort("192.0.2.11:80")}, &Target{Server: netip.MustParseAddrPort("[2001:db8::1]:80")}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+"x", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"x", path); err != nil {
			t.Fatal(err)
		}
	}
	asks(t, f, a, "stat", -1)
	write("# who gets what\n192.0.2.11 50%\n192.0.2.11:443 10\n\n[2001:db8::1]:80 0 # off\n")
	asks(t, f, a, "50% asked for, gets 50%", 0.5)
	asks(t, f, b, "0% asked for, gets 0%", 0)
	write("192.0.2.11 half\n")
	asks(t, f, a, path+`: line 1: "half" is no percentage`, 0.5)
	write("2001:db8::1 80%\n")
	asks(t, f, b, "80% asked for, gets 80%", 0.8)
	os.Remove(path)
	asks(t, f, b, "stat", 0.8)
	os.Mkdir(path, 0o700)
	asks(t, f, b, path+" is no file", 0.8)
	refuses(t, &WeightFile{Path: "weights"}, "path")
}

func FuzzParseWeights(f *testing.F) {
	f.Add([]byte("192.0.2.11 50%\n[2001:db8::1]:80 0 # off\n"))
	f.Add([]byte("::1 99999\n#\n\x00 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		shares, err := parseWeights(text)
		for a, share := range shares {
			if err == nil && (!a.Addr().IsValid() || !(share >= 0 && share <= maxShare/100)) {
				t.Fatalf("%v gets %v", a, share)
			}
		}
	})
}

// The scheduler rt goes by how quickly servers answer their checks, as long as it is the service that answers.
func TestAnswersTellHowQuickAServerIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		rs := realServer(webKey, rs1)
		slow := &scripted{do: func(context.Context, *Target) (string, error) { time.Sleep(40 * time.Millisecond); return "", nil }}
		spec := f.spec(t, nil)
		spec.Options = slow
		f.Watch(webKey, rs, service.Masq, []*Spec{spec})
		time.Sleep(time.Second)
		synctest.Wait()
		if d, _ := rs.ProbeLatency(bootTime()); d < 39*time.Millisecond || d > 41*time.Millisecond {
			t.Errorf("the server's latency is %v, want 40ms", d)
		}
		other := realServer(webKey, rs2)
		spec = f.spec(t, nil)
		spec.Options = &WeightFile{Path: "/nonexistent"}
		f.Watch(webKey, other, service.Masq, []*Spec{spec})
		time.Sleep(time.Second)
		synctest.Wait()
		if d, _ := other.ProbeLatency(bootTime()); d != 0 {
			t.Errorf("a file answers in %v", d)
		}
	})
}

func TestLatency(t *testing.T) {
	l := &Latency{Noise: Duration(time.Nanosecond), Clients: true}
	slow := time.Duration(0)
	target := func(addr string, setup *time.Duration) *Target {
		to := answers(func(net.Conn) {})
		to.Server = netip.MustParseAddrPort(addr)
		to.Setup = func() time.Duration { return *setup }
		return to
	}
	quick := time.Second
	asks(t, l, target("192.0.2.11:80", &quick), "accepts in 1", 1)
	slow = 1000 * time.Second
	asks(t, l, target("192.0.2.12:80", &slow), "accepts in 16m40", 0.05)
	asks(t, l, &Target{Server: netip.MustParseAddrPort("192.0.2.13:80"), Dial: func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("refused")
	}}, "down: refused", -1)
	now := time.Now()
	l.least(netip.MustParseAddrPort("192.0.2.14:80"), time.Microsecond, now.Add(-2*latencyAge))
	if got := l.least(netip.MustParseAddrPort("192.0.2.12:80"), time.Minute, now); got < 900*time.Millisecond {
		t.Errorf("a server not asked for long is the quickest: %v", got)
	}
	refuses(t, &Latency{Noise: -1}, "noise")
}
