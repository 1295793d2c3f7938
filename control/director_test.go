package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// TestRefusals has what the kernel and ipvsadm refuse, on the table that the recorded errors were provoked on
// (testdata/golden/text/errors.txt).
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		line string
		want api.Code // "" is accepted
	}{
		{"-A -t 10.9.0.100:81", ""},
		{"-A -t 10.9.0.100:82 -s nosuch", api.NoScheduler},
		{"-A -t 10.9.0.100:82 -s averyveryverylongschedulername", api.NoScheduler},
		{"-A -t 10.9.0.100:82 -s none", ""},
		{"-A -t 10.9.0.100:80 -s rr", api.ServiceExists},
		{"-A -t 10.9.0.100:80 -s wlc", api.ServiceExists},
		{"-A -t 10.9.0.100:80 -s nosuch", api.ServiceExists},
		{"-A -t 10.9.0.100:0 -s rr", api.Invalid},
		{"-A -t 10.9.0.100:0 -s rr -p 10", ""},
		{"-E -t 10.9.0.100:0 -s rr", api.ServiceNotFound},
		{"-A -f 2 -s rr -o", ""},
		{"-A -t 10.9.0.100:86 -s rr -o", api.Invalid},
		{"-A -u 10.9.0.100:86 -s rr -o", ""},
		{"-A -t 10.9.0.100:88 -s rr -p 2678400", ""},
		{"-A -t 10.9.0.100:88 -s rr -p 2678401", api.OutOfRange},
		{"-A -t 10.9.0.100:89 -s rr -M 255.255.255.0", ""},
		{"-A -t 10.9.0.100:90 -s rr -p 60 -M 255.0.255.0", ""},
		{"-A -t 10.9.0.100:94 -s rr -b sh-port", api.Invalid},
		{"-A -t 10.9.0.100:95 -s sh -b sh-port,nosuchflag", api.Invalid},
		{"-A -t 10.9.0.100:95 -s sh -b flag-1,flag-2,flag-3", ""},
		{"-A -t 10.9.0.100:97 -s rr --pe sip", ""},
		{"-A -u 10.9.0.100:98 -s rr --pe nosuch -p 10", api.NoScheduler},
		{"-A -t 224.0.0.1:80 -s rr", ""},
		{"-A -t 0.0.0.0:80 -s rr", ""},
		{"-A -f 3 -6 -s rr", ""},
		{"-A -f 1 -6 -s rr", ""},
		{"-A -f 1 -s rr", api.ServiceExists},
		{"-E -t 10.9.0.100:1234 -s rr", api.ServiceNotFound},
		{"-E -t 10.9.0.100:80 -s nosuch", api.NoScheduler},
		{"-E -t 10.9.0.100:80", ""},
		{"-D -t 10.9.0.100:1234", api.ServiceNotFound},
		{"-D -t 10.9.0.100:80", ""},
		{"-a -t 10.9.0.100:1234 -r 10.1.0.12:80", api.ServiceNotFound},
		{"-a -t 10.9.0.100:80 -r 10.1.0.11:80", api.ServerExists},
		{"-a -t 10.9.0.100:80 -r 10.1.0.11:80 -m", api.ServerExists},
		{"-a -t 10.9.0.100:80 -r 10.1.0.11:81 -g", api.ServerExists}, // the port becomes 80
		{"-a -t 10.9.0.100:80 -r 10.1.0.11:81 -m", ""},
		{"-a -t 10.9.0.100:80 -r 10.1.0.13:80 -w -1", api.OutOfRange},
		{"-a -t 10.9.0.100:80 -r 10.1.0.13:80 -w 65536", ""},
		{"-a -t 10.9.0.100:80 -r 10.1.0.13:80 -w 2147483647", ""},
		{"-a -t 10.9.0.100:80 -r 10.1.0.13:80 -w 2147483648", api.OutOfRange},
		{"-a -t 10.9.0.100:80 -r 10.1.0.14:80 -x 5 -y 5", ""},
		{"-a -t 10.9.0.100:80 -r 10.1.0.15:80 -x 5 -y 6", api.OutOfRange},
		{"-a -t 10.9.0.100:80 -r 10.1.0.16:80 -y 6", api.OutOfRange},
		{"-a -t 10.9.0.100:80 -r 10.1.0.11:80 -y 6", api.OutOfRange},
		{"-a -t 10.9.0.100:80 -r [2001:db8::1]:80 -g", api.Invalid},
		{"-a -t 10.9.0.100:80 -r [2001:db8::1]:80 -i", ""},
		{"-a -f 1 -r 2001:db8::1 -m", api.Invalid},
		{"-a -t 10.9.0.100:80 -r 224.0.0.5:80 -g", api.Invalid},
		{"-a -t 10.9.0.100:80 -r 255.255.255.255:80 -g", api.Invalid},
		{"-a -t 10.9.0.100:80 -r 0.0.0.0:80 -g", api.Invalid},
		{"-a -t 10.9.0.100:80 -r [ff02::1]:80 -i", api.Invalid},
		{"-a -t 10.9.0.100:80 -r [fe80::1]:80 -i", api.Invalid},
		{"-a -t 10.9.0.100:80 -r [::]:80 -i", api.Invalid},
		{"-a -t 10.9.0.100:80 -r 127.0.0.1:80 -g", ""},
		{"-a -t 10.9.0.100:80 -r 10.9.0.1:80 -i", ""},
		{"-e -t 10.9.0.100:80 -r 10.1.0.99:80 -w 2", api.ServerNotFound},
		{"-e -t 10.9.0.100:1234 -r 10.1.0.99:80 -w 2", api.ServiceNotFound},
		{"-e -t 10.9.0.100:80 -r 10.1.0.11:80", ""},
		{"-e -t 10.9.0.100:80 -r 10.1.0.11:4711", ""}, // DR: port 80
		{"-e -t 10.9.0.100:80 -r 10.1.0.11:4711 -m", api.ServerNotFound},
		{"-d -t 10.9.0.100:80 -r 10.1.0.99:80", api.ServerNotFound},
		{"-d -t 10.9.0.100:80 -r 10.1.0.11:4711", api.ServerNotFound}, // taken as it is
		{"-d -t 10.9.0.100:80 -r 10.1.0.11:80", ""},
		{"-Z", ""},
		{"-Z -t 10.9.0.100:80", ""},
		{"-Z -t 10.9.0.100:1234", api.ServiceNotFound},
		{"--set 0 0 0", ""},
		{"--set 2678400 1 1", ""},
		{"--set 1 2678401 1", api.OutOfRange},
		{"-C", ""},
	} {
		f := newFixture(t)
		f.must("-A -t 10.9.0.100:80 -s rr", "-a -t 10.9.0.100:80 -r 10.1.0.11:80 -g", "-A -f 1 -s rr", "-A -u 10.9.0.100:53 -s wlc")
		before := f.rules()
		err := f.change(c.line)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: refused: %v", c.line, err)
		case c.want != "" && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %s", c.line, err, c.want)
		case c.want != "" && !slices.Equal(before, f.rules()):
			t.Errorf("%s: refused, but the rules changed", c.line)
		case err != nil && strings.ContainsAny(err.Error(), "\n%"):
			t.Errorf("%s: message %q", c.line, err)
		}
	}
}

func TestListsKeepTheKernelsOrder(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-A "+dns+" -s sh -b flag-1,flag-2,flag-3 -p 360", "-A -f 8 -6 -s dh -p 100 -M 64")
	f.must("-a "+web+" -r 10.1.0.11:8080 -g -w 1", "-a "+web+" -r 10.1.0.12:8081 -i -w 2", "-a "+web+" -r 10.1.0.13:8082 -m -w 3 -x 9 -y 2")
	f.wantRules("the latest first, ports of DR and TUN are the service's",
		"-A "+web+" -s rr",
		"-a "+web+" -r 10.1.0.13:8082 -m -w 3 -x 9 -y 2", "-a "+web+" -r 10.1.0.12:80 -i -w 2", "-a "+web+" -r 10.1.0.11:80 -g -w 1",
		"-A "+dns+" -s sh -p 360 -b sh-fallback,sh-port,flag-3", "-A -f 8 -6 -s dh -p 100 -M 64")
	f.must("-e "+web+" -r 10.1.0.13:8082 -m -w 7", "-e "+web+" -r 10.1.0.11:1 -g -w 0", "-d "+web+" -r 10.1.0.12:80",
		"-a "+web+" -r 10.1.0.14 -m", "-E "+dns+" -s rr")
	f.wantRules("edits keep the place and reset thresholds; an edited service loses its other settings",
		"-A "+web+" -s rr",
		"-a "+web+" -r 10.1.0.14:80 -m -w 1", "-a "+web+" -r 10.1.0.13:8082 -m -w 7", "-a "+web+" -r 10.1.0.11:80 -g -w 0",
		"-A "+dns+" -s rr", "-A -f 8 -6 -s dh -p 100 -M 64")
	f.must("-D "+web, "-A "+mark+" -s rr", "-a "+mark+" -r 10.1.0.11:8080 -g", "-A "+web+" -s none")
	f.wantRules("a service with servers can go; a fwmark's server keeps its port",
		"-A "+dns+" -s rr", "-A -f 8 -6 -s dh -p 100 -M 64",
		"-A "+mark+" -s rr", "-a "+mark+" -r 10.1.0.11:8080 -g -w 1", "-A "+web+" -s none")
	if vs := f.vs(web); vs.Scheduler != nil {
		t.Errorf("scheduler none is %v", vs.Scheduler)
	}
	f.must("-C", "-A "+dns+" -s lc")
	f.wantRules("flushed in the same change", "-A "+dns+" -s lc")
	f.must("-C")
	if !f.Table().Empty() {
		t.Error("services after -C")
	}
}

func TestPublishedServiceHasTheSettings(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+dns+" -s sh -b sh-port -p 50 -M 255.255.255.0 -o --pe sip", "-A -f 8 -6 -s dh -p 100 -M 64", "-A "+web+" -s rr")
	vs := f.vs(dns)
	if vs.Persistence != 50*time.Second || vs.Netmask != 0xffffff00 || !vs.OnePacket || vs.PersistenceEngine != "sip" ||
		vs.SchedulerName != "sh" || vs.SchedFlags != service.SchedFlag2 {
		t.Errorf("published %+v", vs)
	}
	if vs := f.vs("-f 8 -6"); vs.PrefixLen != 64 || vs.Persistence != 100*time.Second {
		t.Errorf("published %+v", vs)
	}
	if vs := f.vs(web); vs.Netmask != 0xffffffff || vs.Persistent() {
		t.Errorf("published %+v", vs)
	}
}

func TestModes(t *testing.T) {
	lines := []string{"-A " + web + " -s rr", "-a " + web + " -r 10.1.0.11", "-A " + web + " -s rr", "-a " + web + " -r 10.1.0.12"}
	all := []string{"-A " + web + " -s rr", "-a " + web + " -r 10.1.0.12:80 -g -w 1", "-a " + web + " -r 10.1.0.11:80 -g -w 1"}
	for _, c := range []struct {
		mode  api.OnError
		codes []api.Code
		rules []string
	}{
		{api.Atomic, []api.Code{api.Skipped, api.Skipped, api.ServiceExists, api.Skipped}, nil},
		{"", []api.Code{api.Skipped, api.Skipped, api.ServiceExists, api.Skipped}, nil},
		{api.Stop, []api.Code{"", "", api.ServiceExists, api.Skipped}, []string{all[0], all[2]}},
		{api.Continue, []api.Code{"", "", api.ServiceExists, ""}, all},
	} {
		f := newFixture(t)
		reply, err := f.Change(t.Context(), &api.ChangeRequest{Ops: ops(lines...), OnError: c.mode})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range reply.Results {
			var code api.Code
			if r.Error != nil {
				code = r.Error.Code
			}
			if code != c.codes[i] {
				t.Errorf("mode %q, operation %d: %q, want %q", c.mode, i+1, code, c.codes[i])
			}
		}
		f.wantRules(fmt.Sprintf("mode %q", c.mode), c.rules...)
		if n := len(f.published); n > 2 {
			t.Errorf("mode %q: %d publications, want one", c.mode, n-1)
		}
	}
}

// Each operation sees those before it, also in what it takes back.
func TestOperationsSeeEachOther(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11", "-d "+web+" -r 10.1.0.11:80", "-a "+web+" -r 10.1.0.11 -m",
		"-D "+web, "-A "+web+" -s lc", "-a "+web+" -r 10.1.0.11")
	f.wantRules("added, removed and added", "-A "+web+" -s lc", "-a "+web+" -r 10.1.0.11:80 -g -w 1")
	for _, c := range []struct {
		want  api.Code
		lines []string
	}{
		{api.ServerNotFound, []string{"-d " + web + " -r 10.1.0.11:80", "-d " + web + " -r 10.1.0.11:80"}},
		{api.ServiceNotFound, []string{"-C", "-a " + web + " -r 10.1.0.12"}},
		{api.ServiceNotFound, []string{"-a " + web + " -r 10.1.0.12", "-C", "-a " + web + " -r 10.1.0.13"}},
		{api.ServerNotFound, []string{"-D " + web, "-A " + web + " -s lc", "-e " + web + " -r 10.1.0.11:80"}},
		{api.ServerNotFound, []string{"-C", "-A " + web + " -s lc", "-d " + web + " -r 10.1.0.11:80"}},
	} {
		if err := f.change(c.lines...); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %s", c.lines, err, c.want)
		}
	}
	f.wantRules("nothing was changed", "-A "+web+" -s lc", "-a "+web+" -r 10.1.0.11:80 -g -w 1")
}

func TestWhatThePacketPathCannotDoIsRefused(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.CanForward = func(_ service.Key, _ netip.Addr, c *api.ServerConfig) error {
			if c.Method == api.Tunnel {
				return errors.New("tunnels are not in this version")
			}
			return nil
		}
	})
	f.must("-A " + web)
	for line, want := range map[string]string{
		"-a " + web + " -r 10.1.0.1 -i": "add real server 10.1.0.1:80 to tcp 10.9.0.100:80: tunnels are not in this version",
	} {
		if err := f.change(line); !errors.Is(err, api.Unsupported) || err.Error() != want {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}
