package ipvsadm

import (
	"strings"
	"testing"
)

// served is a uvsd without packets on a socket, attached to eth0 and eth1.
func served(t *testing.T) func(args ...string) (out, errs string, exit int) {
	socket := serveKernel(t, newDirector())
	return func(args ...string) (out, errs string, exit int) {
		return call(map[string]string{"UVS_SOCKET": socket}, "", append([]string{"/sbin/uvsadm"}, args...)...)
	}
}

// shellWords splits a command line; single quotes hold blanks together.
func shellWords(line string) (args []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

func TestMarkRulesAreAddedListedAndDeleted(t *testing.T) {
	uvsadm := served(t)
	do := func(line string) {
		t.Helper()
		if out, errs, exit := uvsadm(shellWords(line)...); out != "" || errs != "" || exit != 0 {
			t.Fatalf("%s: %q, %q, exit %d", line, out, errs, exit)
		}
	}
	list := func(want ...string) {
		t.Helper()
		out, errs, exit := uvsadm("mark", "list")
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if errs != "" || exit != 0 || len(lines) != len(want)+1 || !strings.HasPrefix(lines[0], "Position  Mark") {
			t.Fatalf("mark list: %q, %q, exit %d; want %d rules", out, errs, exit, len(want))
		}
		for i, w := range want {
			if got := strings.Join(strings.Fields(lines[i+1]), " "); got != w {
				t.Errorf("rule %d is %q, want %q", i+1, got, w)
			}
		}
	}
	list()
	do("mark add 1 --dst 192.0.2.1 --proto tcp --dport 80")
	do("mark add 0x1 --dst=192.0.2.1/32 --proto=tcp --dport=443:444")
	do("mark add 4294967295 --interface eth1 --src 10.1.2.3/8 --sport 1024-65535 --at 1")
	do("mark add 3 --dst 2001:db8::/32 --proto any --src any --interface any --sport any")
	do("mark add 3")
	list("1 4294967295 eth1 10.0.0.0/8 any any 1024-65535 any", "2 1 any any 192.0.2.1 tcp any 80",
		"3 1 any any 192.0.2.1 tcp any 443-444", "4 3 any any 2001:db8::/32 any any any", "5 3 any any any any any any")
	do("mark del 1 --dst 192.0.2.1 --proto tcp --dport 80")
	do("mark del 3 --dst any")
	list("1 4294967295 eth1 10.0.0.0/8 any any 1024-65535 any", "2 1 any any 192.0.2.1 tcp any 443-444",
		"3 3 any any 2001:db8::/32 any any any")
	do("mark add 3 --dport 1")
	do("mark del 3")
	do("mark del 1")
	if out, _, _ := uvsadm("mark", "list", "--json"); out != `{
  "rules": [
    {
      "mark": 4294967295,
      "interface": "eth1",
      "src": "10.0.0.0/8",
      "srcPorts": "1024-65535"
    }
  ]
}
` {
		t.Errorf("mark list --json: %s", out)
	}
	do("mark del 4294967295")
	if out, _, _ := uvsadm("mark", "list", "--json"); out != "{\n  \"rules\": []\n}\n" {
		t.Errorf("mark list --json: %s", out)
	}
}

func TestMarkArgumentsThatAreRefused(t *testing.T) {
	uvsadm := served(t)
	uvsadm("mark", "add", "1")
	for _, row := range []struct {
		line, errs string
		exit       int
	}{
		{"mark add", "uvsadm mark add: a mark is missing\n", 2},
		{"mark add 0", "uvsadm mark add: 0 is no mark: it is a number from 1 to 4294967295\n", 2},
		{"mark add --dst 10.0.0.1", "uvsadm mark add: --dst is no mark: it is a number from 1 to 4294967295\n", 2},
		{"mark add 1 --dst", "uvsadm mark add: --dst: a value is missing\n", 2},
		{"mark add 1 --dst 10.0.0", "uvsadm mark add: --dst 10.0.0: neither an address nor a network such as 10.0.0.0/8\n", 2},
		{"mark add 1 --src 10.0.0.0/33", "uvsadm mark add: --src 10.0.0.0/33: no network such as 10.0.0.0/8\n", 2},
		{"mark add 1 --src fe80::1%eth0", "uvsadm mark add: --src fe80::1%eth0: neither an address nor a network such as 10.0.0.0/8\n", 2},
		{"mark add 1 --proto icmp", "uvsadm mark add: --proto icmp: the protocol is tcp, udp or sctp\n", 2},
		{"mark add 1 --dport 0", "uvsadm mark add: --dport 0: ports \"0\": neither a port from 1 to 65535 nor a range such as 1024-65535\n", 2},
		{"mark add 1 --dport 1 --dport 2", "uvsadm mark add: --dport is there twice\n", 2},
		{"mark add 1 --at 0", "uvsadm mark add: --at 0: positions are counted from 1\n", 2},
		{"mark add 1 --port 80", "uvsadm mark add: --port 80: no such condition\n", 2},
		{"mark add 1 --src 10.0.0.1 --dst 2001:db8::1",
			"uvsadm: mark rule: source 10.0.0.1/32 and destination 2001:db8::1/128 are of different families\n", 255},
		{"mark add 1 --interface eth2", "uvsadm: add mark rule 1 --interface eth2: uvsd is not attached to eth2\n", 255},
		{"mark add 2", "uvsadm: add mark rule 2: a rule with these conditions gives mark 1 already\n", 255},
		{"mark add 2 --dport 1 --at 3", "uvsadm: add mark rule 2 --dport 1: position 3, there are 1 rules\n", 255},
		{"mark del 2", "uvsadm: no rule gives mark 2\n", 255},
		{"mark del 1 --dst 10.0.0.1", "uvsadm: delete mark rule 1 --dst 10.0.0.1: no such rule\n", 255},
		{"mark del 1 --at 1", "uvsadm mark del: --at is for mark add\n", 2},
		{"mark list all", "uvsadm mark list: unexpected argument all\n", 2},
		{"mark flush", "uvsadm mark: no such word: flush (there are add, del and list)\n", 2},
	} {
		if out, errs, exit := uvsadm(shellWords(row.line)...); out != "" || errs != row.errs || exit != row.exit {
			t.Errorf("%s: %q, %q, exit %d; want %q, %d", row.line, out, errs, exit, row.errs, row.exit)
		}
	}
}

func TestSysctlPrintsAndSets(t *testing.T) {
	uvsadm := served(t)
	for _, row := range []struct {
		line, out, errs string
		exit            int
	}{
		{"sysctl vs.am_droprate", "net.ipv4.vs.am_droprate = 10\n", "", 0},
		{"sysctl net.ipv4.vs.am_droprate=5 vs.sloppy_tcp net/ipv4/vs/pmtu_disc=0",
			"net.ipv4.vs.am_droprate = 5\nnet.ipv4.vs.sloppy_tcp = 0\nnet.ipv4.vs.pmtu_disc = 0\n", "", 0},
		{"sysctl -n vs.am_droprate vs.pmtu_disc", "5\n0\n", "", 0},
		{"sysctl -w 'vs.sync_threshold = 3 100'", "net.ipv4.vs.sync_threshold = 3 100\n",
			"net.ipv4.vs.sync_threshold is kept but does nothing: connection synchronisation is not in this version\n", 0},
		{"sysctl --json vs.sloppy_tcp=1", `{
  "settings": [
    {
      "name": "net.ipv4.vs.sloppy_tcp",
      "value": "1",
      "default": "0"
    }
  ]
}
`, "", 0},
		{"sysctl vs.none", "", "uvsadm: no such setting: vs.none\n", 255},
		{"sysctl vs.sloppy_tcp=0 vs.drop_entry=4", "", "uvsadm: set vs.drop_entry to \"4\": 4 is not between 0 and 3\n", 255},
		{"sysctl vs.sloppy_tcp", "net.ipv4.vs.sloppy_tcp = 1\n", "", 0},
		{"sysctl vs.sloppy_tcp=", "", "uvsadm: set vs.sloppy_tcp to \"\": \"\" is not a number\n", 255},
		{"sysctl", "", "uvsadm sysctl: name settings to print, settings to set as NAME=VALUE, or -a for all\n", 2},
		{"sysctl -a vs.sloppy_tcp", "", "uvsadm sysctl: name settings to print, settings to set as NAME=VALUE, or -a for all\n", 2},
		{"sysctl -p file", "", "uvsadm sysctl: unexpected argument -p\n", 2},
	} {
		if out, errs, exit := uvsadm(shellWords(row.line)...); out != row.out || errs != row.errs || exit != row.exit {
			t.Errorf("%s: %q, %q, exit %d; want %q, %q, %d", row.line, out, errs, exit, row.out, row.errs, row.exit)
		}
	}
	out, errs, exit := uvsadm("sysctl", "-a")
	if exit != 0 || errs != "" || strings.Count(out, "\n") < 29 || !strings.HasPrefix(out, "net.ipv4.vs.am_droprate = 5\n") {
		t.Errorf("sysctl -a: %q, %q, exit %d", out, errs, exit)
	}
}
