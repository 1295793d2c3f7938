package importer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"uvs/config"
	"uvs/control/api"
	"uvs/control/ipvsadm"
)

// table is a slow and obvious ipvsadm: what rules make, line by line.
type table []*config.ServiceState

func (t *table) apply(op *api.Op) {
	at := slices.IndexFunc(*t, func(s *config.ServiceState) bool { return op.Service != nil && s.Key == *op.Service })
	switch op.Kind {
	case api.AddService:
		if at < 0 {
			*t = append(*t, &config.ServiceState{Key: *op.Service, Config: *op.ServiceConfig})
		}
		return
	case api.Flush:
		*t = nil
		return
	}
	if at < 0 {
		return
	}
	s := (*t)[at]
	i := slices.IndexFunc(s.Servers, func(r config.ServerState) bool { return op.Server != nil && r.Key == *op.Server })
	switch {
	case op.Kind == api.EditService:
		s.Config = *op.ServiceConfig
	case op.Kind == api.DeleteService:
		*t = slices.Delete(*t, at, at+1)
	case op.Kind == api.AddServer && i < 0:
		s.Servers = append(s.Servers, config.ServerState{Key: *op.Server, Config: *op.ServerConfig})
	case op.Kind == api.EditServer && i >= 0:
		s.Servers[i].Config = *op.ServerConfig
	case op.Kind == api.DeleteServer && i >= 0:
		s.Servers = slices.Delete(s.Servers, i, i+1)
	}
}

// text writes a table, so that two can be compared: absent and default are the same.
func (t table) text() string {
	var b strings.Builder
	for _, s := range t {
		c := s.Config
		flags, _ := api.ParseSchedFlags(c.Scheduler, c.SchedFlags)
		fmt.Fprintf(&b, "%v %s %d %d %v %s %v\n", s.Key, c.Scheduler, flags, c.PersistenceSeconds, c.Netmask, c.PersistenceEngine, c.OnePacket)
		for _, r := range s.Servers {
			var tunnel api.TunnelConfig
			if x := r.Config.Tunnel; x != nil {
				tunnel = *x
			}
			tunnel.Type, tunnel.Checksum = cmp.Or(tunnel.Type, api.IPIP), cmp.Or(tunnel.Checksum, api.NoChecksum)
			fmt.Fprintf(&b, "  %v %s %d %d %d %v\n", r.Key, r.Config.Method, r.Config.Weight, r.Config.Upper, r.Config.Lower, tunnel)
		}
	}
	return b.String()
}

// randomRules are lines of which many are refused: what isn't there is edited, what is there is added again.
func randomRules(r *rand.Rand) string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var b strings.Builder
	for range 60 {
		service := pick("-t 192.0.2.1:80", "-t 192.0.2.1:443", "-u 192.0.2.1:53", "--sctp-service 192.0.2.1:132", "-f 7", "-f 7 -6", "-t [2001:db8::1]:80")
		six := strings.Contains(service, "-6") || strings.Contains(service, "[")
		port := pick(":80", ":8080", "")
		server := pick("10.0.0.1", "10.0.0.2", "10.0.0.3") + port
		if six {
			server = pick("[2001:db8::11]", "[2001:db8::12]") + pick(":80", ":8080")
		}
		switch pick("A", "A", "E", "a", "a", "a", "a", "a", "e", "e", "d", "D") {
		case "A":
			fmt.Fprintf(&b, "-A %s", service)
			fallthrough
		case "E":
			if !strings.HasSuffix(b.String(), service) {
				fmt.Fprintf(&b, "-E %s", service)
			}
			b.WriteString(pick("", " -s rr", " -s wlc", " -s mh -b mh-port", " -s sh -b flag-1,sh-port") + pick("", " -p", " -p 77"))
			if strings.HasPrefix(service, "-u") || strings.HasPrefix(service, "-f") {
				b.WriteString(pick("", " -o"))
			}
			b.WriteString("\n")
		case "a":
			fmt.Fprintf(&b, "-a %s -r %s%s%s%s\n", service, server, pick("", " -m", " -g", " -i", " -i --tun-type gre --tun-csum", " -i --tun-type gue --tun-port 99"),
				pick("", " -w 0", " -w 9"), pick("", " -x 10", " -x 10 -y 5"))
		case "e":
			fmt.Fprintf(&b, "-e %s -r %s%s -w %d\n", service, server, pick(" -m", " -g", " -i"), r.IntN(9))
		case "d":
			fmt.Fprintf(&b, "-d %s -r %s\n", service, server)
		case "D":
			fmt.Fprintf(&b, "-D %s\n", service)
		}
	}
	return b.String()
}

// Whatever rules say, the file that is made of them asks uvsd for the table that they make.
func TestRulesMakeTheSameTableByTheFile(t *testing.T) {
	for seed := range uint64(200) {
		rules := randomRules(rand.New(rand.NewPCG(seed, 1)))
		var want table
		for _, r := range ipvsadm.ReadRules(rules, fakeNames{}) {
			if r.Op != nil {
				want.apply(r.Op)
			}
		}
		r, err := importText("rules", rules, Options{Kind: Ipvsadm, Names: fakeNames{}}, &files{limits: lim})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		text := r.YAML()
		f, err := config.Parse("uvs.yaml", text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		state, err := f.State(nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := table(state.Services).text(); got != want.text() {
			t.Fatalf("seed %d: the rules\n%smake\n%swant\n%sby the file\n%s", seed, rules, got, want.text(), text)
		}
	}
}
