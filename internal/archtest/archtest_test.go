// Package archtest keeps the rules about which package may import which.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rules names, for each package of the module, the others that its non-test code may import. "x/..." stands for x and all
// below it. A new edge is a decision: write it here and say why in ARCHITECTURE.md.
var rules = map[string][]string{
	"packet":               {},
	"service":              {"packet"},
	"sched":                {"service", "packet"},
	"sched/trial":          {"sched", "service", "packet"}, // tries them out
	"conntrack":            {"service", "packet"},
	"forward":              {"packet"},
	"dataplane/link":       {"packet"},
	"dataplane/nexthop":    {"packet"},
	"dataplane/guard":      {"packet"},
	"dataplane/fragment":   {"packet", "forward"}, // cuts a whole datagram up again
	"dataplane/ftp":        {"packet"},
	"dataplane/sip":        {},
	"dataplane/tun":        {"packet"},
	"dataplane/local":      {"packet", "dataplane/link", "dataplane/tun"}, // links to a device of tun
	"dataplane/decap":      {"packet", "dataplane/fragment", "dataplane/tun"},
	"dataplane/dialer":     {"dataplane", "dataplane/nexthop", "packet", "service"}, // a user of the packet path's, as doctor is
	"dataplane":            {"forward", "conntrack", "service", "packet", "dataplane/..."},
	"health":               {"service", "packet", "health/agent"}, // asks through an interface of its own
	"health/agent":         {},                                    // also of real servers, which have nothing else of uvs
	"health/notify":        {},
	"health/sorry":         {},
	"config":               {"control/api", "control/sysctl", "health", "sched", "service"}, // knows all that a file can name
	"config/importer":      {"config", "control/api", "control/ipvsadm", "health", "sched"}, // reads rules as uvsadm does
	"config/atomicfile":    {},
	"config/live":          {"config", "config/atomicfile", "control/api"}, // a director is an interface to it
	"control/api":          {"service"},
	"control/sysctl":       {"control/api", "service"},
	"control/top":          {"control/api"},
	"control/ipvsadm":      {"control/api", "control/top"},
	"control/doctor":       {"control/api", "dataplane/...", "service", "packet"}, // reads findings off the packet path's probes
	"control":              {"control/api", "control/sysctl", "health/...", "dataplane/...", "conntrack", "sched/...", "service", "packet"},
	"lab":                  {},
	"lab/uml":              {},
	"lab/uml/guest":        {},
	"lab/sctp":             {},
	"cmd/uvsd":             {"config/...", "control/...", "health", "dataplane/...", "conntrack", "sched", "service", "packet"},
	"bench":                {"bench/progress", "bench/result", "bench/sim", "packet", "service", "sched", "conntrack", "forward", "dataplane/...", "lab"}, // measures them all
	"bench/scale":          {"control", "control/api", "conntrack", "dataplane/...", "packet", "service"},                                                 // directors whole, but for their sockets
	"bench/result":         {},
	"bench/load":           {"bench/result"},
	"bench/replay":         {"bench/result", "conntrack", "packet", "sched", "sched/trial", "service"}, // recorded connections, offered
	"cmd/uvsbench":         {"bench/...", "packet", "sched/trial"},                                     // servers and schedulers to be named
	"bench/report":         {"bench/result"},
	"bench/progress":       {},
	"bench/studies":        {},
	"bench/sim":            {"bench/result", "sched", "service", "packet"}, // the code that decides, and nothing that sends
	"cmd/uvsdecap":         {"dataplane/decap"},
	"cmd/uvs-agent":        {"health/agent"},
	"cmd/uvsadm":           {"config/importer", "control/api", "control/ipvsadm"}, // gives the word import what it does
	"lab/demo":             {"lab"},
	"e2e":                  {"lab", "lab/uml"},
	"internal/conformance": {"control/...", "conntrack", "dataplane", "dataplane/link", "dataplane/nexthop", "packet", "service"},

	"internal/confdoc": {"config", "health"}, // documents them
	"internal/manual":  {},
	"internal/openapi": {"control/api"}, // describes it
	"internal/oracle":  {"internal/conformance", "lab/uml"},
}

// outside names the modules whose use is confined to some packages.
var outside = map[string][]string{
	"github.com/google/gopacket":              {"bench/..."},
	"gonum.org/v1/gonum":                      {"bench/..."},
	"gonum.org/v1/plot":                       {"bench/report"},
	"go.yaml.in/yaml/v4":                      {"config", "internal/confdoc", "bench/sim"},
	"github.com/gdamore/tcell/v3":             {"control/top"},
	"github.com/gosnmp/gosnmp":                {"health"},
	"github.com/mdlayher/packet":              {"dataplane/...", "ha/...", "health", "lab/...", "bench/..."},
	"github.com/vishvananda/netlink":          {"dataplane/...", "ha/...", "lab/...", "bench/...", "cmd/uvsd"},
	"github.com/google/nftables":              {"dataplane/guard", "lab/..."},
	"golang.org/x/net":                        {"health"},
	"golang.org/x/sys/unix":                   {"dataplane/...", "ha/...", "health", "lab/...", "bench/...", "control/api", "cmd/..."},
	"go.uber.org/zap":                         {"dataplane/...", "control/...", "config/live", "ha/...", "health/...", "cmd/...", "web"},
	"github.com/cespare/xxhash/v2":            {"conntrack", "sched", "bench/..."},
	"github.com/gaissmai/bart":                {"dataplane/nexthop"},
	"gvisor.dev/gvisor":                       {"dataplane/dialer"},
	"github.com/HdrHistogram/hdrhistogram-go": {"bench/load"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheRules(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, "uvs/")
		allowed, known := rules[name]
		if !known && name != "internal/archtest" {
			t.Errorf("package %s has no rule: say in this test what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, "uvs/"); ok && !matches(allowed, own) {
				t.Errorf("package %s imports %s, which its rule doesn't allow", name, own)
			}
			for module, users := range outside {
				if (imp == module || strings.HasPrefix(imp, module+"/")) && !matches(users, name) {
					t.Errorf("package %s imports %s, which is confined to %v", name, imp, users)
				}
			}
		}
	}
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if base, ok := strings.CutSuffix(p, "/..."); ok {
			return name == base || strings.HasPrefix(name, base+"/")
		}
		return p == name
	})
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "uvs/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("go list's output: %v", err)
		}
		all = append(all, p)
	}
}
