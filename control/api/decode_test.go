package api

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func TestNetmasksAreWrittenAsIpvsadmTakesThem(t *testing.T) {
	for _, row := range []struct {
		text string
		is6  bool
		addr string
	}{
		{"", false, "255.255.255.255"},
		{"", true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"255.255.255.0", false, "255.255.255.0"},
		{"255.0.255.0", false, "255.0.255.0"},
		{"0.0.0.0", false, "0.0.0.0"},
		{"1", true, "8000::"},
		{"64", true, "ffff:ffff:ffff:ffff::"},
		{"127", true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
	} {
		var m Netmask
		if err := m.UnmarshalText([]byte(row.text)); err != nil {
			t.Errorf("%q: %v", row.text, err)
			continue
		}
		if got := m.Addr(row.is6); got.String() != row.addr {
			t.Errorf("%q masks with %v, want %s", row.text, got, row.addr)
		}
		if m.String() != row.text || !m.Fits(row.is6) || (row.text != "" && m.Fits(!row.is6)) {
			t.Errorf("%q comes back as %q, fits IPv6 %v", row.text, m, m.Fits(true))
		}
	}
	for text, want := range map[string]string{"255.255.255.255": "", "128": ""} {
		var m Netmask
		if err := m.UnmarshalText([]byte(text)); err != nil || m.String() != want {
			t.Errorf("%q = %q, %v; want the whole address", text, m, err)
		}
	}
	for _, text := range []string{"0", "129", "-1", "064", "+64", "255.255", "ffff::", "x", "64 "} {
		var m Netmask
		if err := m.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v, want an error", text, m)
		}
	}
}

func TestSchedFlagsHaveTheSchedulersNames(t *testing.T) {
	for _, row := range []struct {
		scheduler string
		in        []string
		want      []string // nil: refused
	}{
		{"sh", []string{"sh-port", "sh-fallback"}, []string{"sh-fallback", "sh-port"}},
		{"sh", []string{"flag-1", "flag-2", "flag-3"}, []string{"sh-fallback", "sh-port", "flag-3"}},
		{"mh", []string{"mh-port", "flag-3"}, []string{"mh-port", "flag-3"}},
		{"wlc", []string{"flag-2"}, []string{"flag-2"}},
		{"wlc", []string{"sh-port"}, nil},
		{"mh", []string{"sh-port"}, nil},
		{"sh", []string{"SH-PORT"}, nil},
		{"sh", []string{""}, nil},
	} {
		f, err := ParseSchedFlags(row.scheduler, row.in)
		if (err != nil) != (row.want == nil) || (err == nil && !slices.Equal(f.Names(row.scheduler), row.want)) {
			t.Errorf("%s %q = %q, %v; want %q", row.scheduler, row.in, f.Names(row.scheduler), err, row.want)
		}
	}
}

func TestKeysSurviveAQuery(t *testing.T) {
	for _, k := range []ServiceKey{
		web, mark, {FWMark: 1<<32 - 1, Family: IPv4}, {Protocol: SCTP, Address: netip.MustParseAddr("2001:db8::1")},
	} {
		got, err := DecodeKey(k.query().Encode())
		if err != nil || *got != k {
			t.Errorf("%v comes back as %v, %v", k, got, err)
		}
	}
}

// FuzzDecodeChange holds that whatever is accepted is well formed and says the same when it is written out again.
func FuzzDecodeChange(f *testing.F) {
	for _, body := range malformed {
		if len(body) < 1000 {
			f.Add([]byte(body))
		}
	}
	for _, body := range []string{
		`{"ops":[]}`,
		`{"ops":[{"op":"flush"}],"onError":"continue"}`,
		`{"onError":"stop","ops":[{"op":"zero-counters"},{"op":"zero-counters","service":{"fwmark":7,"family":"ipv4"}}]}`,
		`{"ops":[{"op":"add-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"serviceConfig":{"scheduler":"sh","schedFlags":["sh-port"],"persistenceSeconds":300,"netmask":"255.255.255.0"}}]}`,
		`{"ops":[{"op":"edit-service","service":{"protocol":"udp","address":"2001:db8::1","port":53},"serviceConfig":{"scheduler":"rr","onePacket":true,"netmask":"64","persistenceEngine":"sip"}}]}`,
		`{"ops":[{"op":"add-server","service":{"protocol":"sctp","address":"10.0.0.1","port":80},"server":{"address":"2001:db8::2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"gue","port":6080,"checksum":"remote"}}}]}`,
		`{"ops":[{"op":"edit-server","service":{"fwmark":8,"family":"ipv6"},"server":{"address":"2001:db8::2","port":0},"serverConfig":{"method":"masq","weight":0,"upper":10,"lower":5}}]}`,
		`{"ops":[{"op":"set-timeouts","timeouts":{"tcpSeconds":900,"tcpFinSeconds":120,"udpSeconds":300}}]}`,
		`{"ops":[{"op":"add-mark-rule","position":2,"markRule":{"mark":7,"interface":"eth0","src":"10.0.0.0/8","dst":"192.0.2.1/32","protocol":"tcp","srcPorts":"1024-65535","dstPorts":"80"}}]}`,
		`{"ops":[{"op":"delete-mark-rule","markRule":{"mark":7,"srcPorts":"0-65535"}}]}`,
		`{"ops":[{"op":"start-daemon","daemon":{"role":"master","interface":"eth0","syncID":7,"maxLen":1400,"group":"224.0.0.81","port":8848,"ttl":1}},{"op":"stop-daemon","daemon":{"role":"backup"}}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := DecodeChange(body)
		if err != nil {
			if AsError(err).Code != BadRequest {
				t.Fatalf("refused with %v", AsError(err).Code)
			}
			return
		}
		for i := range req.Ops {
			if err := req.Ops[i].Check(); err != nil {
				t.Fatalf("accepted though operation %d is not well formed: %v", i, err)
			}
		}
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeChange(again)
		if err != nil {
			t.Fatalf("%s\nwas accepted, but not %s\n%v", body, again, err)
		}
		third, err := json.Marshal(back)
		if err != nil || !reflect.DeepEqual(again, third) {
			t.Fatalf("%s\nbecomes %s", again, third)
		}
	})
}

func TestMarkRulesAreWrittenAsUvsadmTakesThem(t *testing.T) {
	for _, row := range []struct {
		rule MarkRule
		want string
	}{
		{MarkRule{Mark: 1}, "1"},
		{MarkRule{Mark: 1 << 31, Interface: "eth0", Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("192.0.2.1/32"),
			Protocol: TCP, SrcPorts: PortRange{1024, 65535}, DstPorts: PortRange{80, 80}},
			"2147483648 --interface eth0 --src 10.0.0.0/8 --dst 192.0.2.1 --proto tcp --sport 1024-65535 --dport 80"},
	} {
		if got := row.rule.String(); got != row.want {
			t.Errorf("String() = %q, want %q", got, row.want)
		}
	}
	for text, want := range map[string]PortRange{"0-65535": {}, "0-5": {0, 5}, "65535": {65535, 65535}, "1-2": {1, 2}} {
		if got, err := ParsePortRange(text); err != nil || got != want {
			t.Errorf("ParsePortRange(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-", "1-", "-1", "2-1", "65536", "1-65536", "+1", "1-2-3", "http"} {
		if got, err := ParsePortRange(text); err == nil {
			t.Errorf("ParsePortRange(%q) = %v, want an error", text, got)
		}
	}
}

// FuzzDecodeSettings holds that whatever is accepted says the same when it is written out again.
func FuzzDecodeSettings(f *testing.F) {
	for _, body := range []string{
		`{"settings":[{"name":"vs.sloppy_tcp","value":"1"}]}`, `{"settings":[]}`, `{"settings":null}`, `{}`,
		`{"settings":[{"name":"","value":"1"}]}`, `{"settings":[{"name":"a","value":"3 50"},{"name":"a","note":"x"}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := DecodeSettings(body)
		if err != nil {
			if AsError(err).Code != BadRequest {
				t.Fatalf("refused with %v", AsError(err).Code)
			}
			return
		}
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeSettings(again); err != nil || !reflect.DeepEqual(back, req) {
			t.Fatalf("%s\nbecomes %s, %v", body, again, err)
		}
	})
}

// FuzzDecodeKey holds that an accepted query says the same when it is written out again.
func FuzzDecodeKey(f *testing.F) {
	for _, q := range []string{"", "protocol=tcp&address=10.0.0.1&port=80", "fwmark=7&family=ipv6", "protocol=udp&address=%3A%3A1&port=0",
		"port=1&port=2", "fwmark=-1", "a=%", "protocol=tcp;address=1"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		k, err := DecodeKey(q)
		if err != nil || k == nil {
			return
		}
		if back, err := DecodeKey(k.query().Encode()); err != nil || *back != *k {
			t.Fatalf("%q is %v, but comes back as %v, %v", q, k, back, err)
		}
	})
}
