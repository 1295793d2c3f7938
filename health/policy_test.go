package health

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// policyFromWords makes a Policy of words of the form name=value, as uvsadm does.
func policyFromWords(words []string) (*Policy, error) {
	given := map[string]any{}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q: options have the form name=value", w)
		}
		if _, twice := given[name]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		given[name] = value
	}
	data, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	return DecodePolicy(data)
}

func TestPolicyFromWords(t *testing.T) {
	p, err := policyFromWords([]string{"reaction=quiesce", "quorum=4", "hysteresis=1", "sorry=192.0.2.9", "slowstart=30s",
		"notifydown=/usr/local/bin/page  admin %h", "retryafter=0"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Reaction != Quiesce || p.Quorum != 4 || p.Hysteresis != 1 || time.Duration(p.SlowStart) != 30*time.Second || p.RetryAfter != 0 ||
		!reflect.DeepEqual(p.NotifyDown, Command{"/usr/local/bin/page", "admin", "%h"}) || p.SorryMethod != "nat" {
		t.Errorf("policyFromWords() = %+v", p)
	}
	if a, err := p.SorryServer(80); err != nil || a != netip.MustParseAddrPort("192.0.2.9:80") {
		t.Errorf("SorryServer() = %v, %v", a, err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodePolicy(b)
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("written as %s and read again: %+v, %v", b, again, err)
	}
	d := DefaultPolicy()
	if d.Reaction != Remove || d.Quorum != 1 || d.Sorry != None || d.SlowStart != 0 || time.Duration(d.NotifyTimeout) != 30*time.Second {
		t.Errorf("DefaultPolicy() = %+v", d)
	}
	if b, err := json.Marshal(d); err != nil || string(b) != "{}" {
		t.Errorf("the default policy is written as %s, %v", b, err)
	}
	p, err = DecodePolicy([]byte(`{"sorry":"[2001:db8::9]:8080","notifyup":["/bin/tell","two words"],"quorum":"2","sorrypage":"<h1>later</h1>"}`))
	if err != nil || p.Quorum != 2 || len(p.NotifyUp) != 2 {
		t.Fatalf("DecodePolicy() = %+v, %v", p, err)
	}
	if a, err := p.SorryServer(80); err != nil || a != netip.MustParseAddrPort("[2001:db8::9]:8080") {
		t.Errorf("SorryServer() = %v, %v", a, err)
	}
}

func TestPolicyRefusesWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"reaction=explode", "remove or quiesce"}, {"quorum=0", "from 1"}, {"quorum=two", "quorum=two"},
		{"hysteresis=1", "less than quorum"}, {"quorum=2 hysteresis=-1", "from 0"}, {"sorry=nobody", "builtin"}, {"sorry=", "builtin"},
		{"sorrymethod=pigeon", "nat, dr, tun"}, {"slowstart=2d3h", "duration"}, {"slowstart=25h", "24h"}, {"slowstart=-1s", "from 0s"},
		{"retryafter=-1s", "from 0s"}, {"notifytimeout=0", "1ms"}, {"notifyup=page", "begin with /"}, {"quorumdown=./x", "begin with /"},
		{"sorrypage=@page", "begin with /"}, {"qourum=2", "did you mean quorum"}, {"quorum", "name=value"}, {"quorum=1 quorum=2", "twice"},
		{"sorrypage=" + strings.Repeat("x", maxPage+1), "bytes"},
	} {
		if p, err := policyFromWords(strings.Fields(c.words)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %+v, %v, want %q", c.words, p, err, c.want)
		}
	}
	for _, data := range []string{"", "null", "[]", `{"quorum":null}`, `{"notifyup":{}}`} {
		if _, err := DecodePolicy([]byte(data)); err == nil {
			t.Errorf("%s is a policy", data)
		}
	}
}

// What keepalived's manual says: with quorum 5 and hysteresis 2 the service comes up at 7 and goes down below 3.
func TestQuorum(t *testing.T) {
	p, err := policyFromWords([]string{"quorum=5", "hysteresis=2"})
	if err != nil {
		t.Fatal(err)
	}
	var q Quorum
	var got []string
	for _, sum := range []int64{6, 5, 4, 3, 2, 3, 5, 6, 7, 6, 3, 0, 100} {
		changed := q.Observe(sum, p)
		got = append(got, fmt.Sprint(sum, q.Up(), changed))
	}
	want := "6truefalse 5truefalse 4truefalse 3truefalse 2falsetrue 3falsefalse 5falsefalse 6falsefalse 7truetrue 6truefalse 3truefalse 0falsetrue 100truetrue"
	if s := strings.ReplaceAll(strings.Join(got, "|"), " ", ""); s != strings.ReplaceAll(want, " ", "|") {
		t.Errorf("%s, want %s", s, want)
	}
}

func FuzzDecodePolicy(f *testing.F) {
	f.Add([]byte(`{"reaction":"quiesce","quorum":"3","notifyup":["/a","b"],"slowstart":"30s"}`))
	f.Add([]byte(`{"sorry":"[::1]","sorrypage":"@/x","retryafter":5,"quorumdown":"/a b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodePolicy(data)
		if err != nil {
			return
		}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodePolicy(b); err != nil {
			t.Fatalf("%s is written as %s: %v", data, b, err)
		}
	})
}
