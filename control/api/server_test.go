package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// stub is a backend that remembers what it was asked and answers what it was told to.
type stub struct {
	changes  atomic.Int64
	change   func(*ChangeRequest) (*ChangeReply, error)
	services []Service
	key      *ServiceKey
	marks    []MarkRule
	asked    []string // names of settings
	set      []Setting
	conns    func(yield func(*Connection) error) error
	trace    func(ctx context.Context, req *TraceRequest, yield func(*TraceEvent) error) error
	err      error
}

func (s *stub) Change(_ context.Context, req *ChangeRequest) (*ChangeReply, error) {
	s.changes.Add(1)
	if s.change != nil {
		return s.change(req)
	}
	return &ChangeReply{Results: make([]OpResult, len(req.Ops))}, nil
}

func (s *stub) Services(_ context.Context, key *ServiceKey) ([]Service, error) {
	s.key = key
	return s.services, s.err
}

func (s *stub) Connections(_ context.Context, filter ConnectionFilter, yield func(*Connection) error) error {
	s.key = filter.Service
	return s.conns(yield)
}

func (s *stub) Explain(_ context.Context, req *ExplainRequest) (*Explanation, error) {
	return &Explanation{Known: "none", Verdict: req.Protocol}, s.err
}

func (s *stub) Trace(ctx context.Context, req *TraceRequest, begun func() error, yield func(*TraceEvent) error) error {
	if s.err != nil {
		return s.err
	}
	if err := begun(); err != nil {
		return err
	}
	return s.trace(ctx, req, yield)
}

func (s *stub) Doctor(context.Context) (*Diagnosis, error) {
	return &Diagnosis{Servers: 2}, s.err
}

func (s *stub) Health(_ context.Context, key *ServiceKey) ([]ServerHealth, error) {
	s.key = key
	return nil, s.err
}

func (s *stub) TestChecks(_ context.Context, req *CheckTestRequest) ([]CheckTest, error) {
	return []CheckTest{{ID: req.ID}}, s.err
}

func (s *stub) Timeouts(context.Context) (Timeouts, error) { return Timeouts{900, 120, 300}, s.err }

func (s *stub) Daemons(context.Context) ([]Daemon, error) { return nil, s.err }

func (s *stub) Marks(context.Context) ([]MarkRule, error) { return s.marks, s.err }

func (s *stub) Settings(_ context.Context, names []string) ([]Setting, error) {
	s.asked = names
	return nil, s.err
}

func (s *stub) Set(_ context.Context, settings []Setting) ([]Setting, error) {
	s.set = settings
	return settings, s.err
}

// Shadow and Shadows try nothing.
func (s *stub) Shadow(context.Context, *ShadowRequest) (*ShadowsReply, error) {
	return &ShadowsReply{Shadows: []Shadow{}}, nil
}
func (s *stub) Shadows(context.Context, *ServiceKey) (*ShadowsReply, error) {
	return &ShadowsReply{Shadows: []Shadow{}}, nil
}

// Drain drains nothing.
func (s *stub) Reload(context.Context, *ReloadRequest) (*Reload, error)   { return &Reload{}, nil }
func (s *stub) Save(context.Context, *SaveRequest) (*Saved, error)        { return &Saved{}, nil }
func (s *stub) Drain(context.Context, *DrainRequest) ([]Drain, error)     { return nil, nil }
func (s *stub) Drains(context.Context) ([]Drain, error)                   { return nil, nil }
func (s *stub) Undrain(context.Context, *UndrainRequest) ([]Drain, error) { return nil, nil }

func (s *stub) Status(context.Context) (*Status, error) { return &Status{PID: 7}, s.err }

func (s *stub) Version(context.Context) (Version, error) {
	return Version{UVS: "test", IPVS: "1.2.1", ConnTableSize: 4096}, s.err
}

// serve starts a server for b on a socket of its own and returns a client of it.
func serve(t *testing.T, b Backend) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "uvsd.sock")
	l, err := Listen(path, "no-such-group")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, b) }()
	c := NewClient(path)
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v after its context ended, want nil", err)
		}
	})
	return c
}

// raw sends a request as it is and returns the answer.
func raw(t *testing.T, c *Client, method, path, body string) (status int, reply string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://uvsd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

var (
	web  = ServiceKey{Protocol: TCP, Address: netip.MustParseAddr("10.9.0.100"), Port: 80}
	mark = ServiceKey{FWMark: 8, Family: IPv6}
	rs11 = ServerKey{Address: netip.MustParseAddr("10.1.0.11"), Port: 80}
)

func TestOperationsArriveAsTheyWereSent(t *testing.T) {
	mask6, _ := Netmask6(64)
	want := []Op{
		{Kind: AddService, Service: &web, ServiceConfig: &ServiceConfig{Scheduler: "sh", SchedFlags: []string{"sh-port"},
			PersistenceSeconds: 50, Netmask: Netmask4([4]byte{255, 0, 255, 0}), PersistenceEngine: "sip", OnePacket: true}},
		{Kind: EditService, Service: &mark, ServiceConfig: &ServiceConfig{Scheduler: "dh", PersistenceSeconds: 1, Netmask: mask6}},
		{Kind: AddServer, Service: &web, Server: &rs11, ServerConfig: &ServerConfig{Method: Tunnel, Weight: MaxWeight, Upper: 9, Lower: 3,
			Tunnel: &TunnelConfig{Type: GUE, Port: 6080, Checksum: RemoteChecksum}}},
		{Kind: EditServer, Service: &web, Server: &rs11, ServerConfig: &ServerConfig{Method: Masq}},
		{Kind: DeleteServer, Service: &web, Server: &rs11},
		{Kind: ZeroCounters},
		{Kind: ZeroCounters, Service: &web},
		{Kind: DeleteService, Service: &web},
		{Kind: Flush},
		{Kind: SetTimeouts, Timeouts: &Timeouts{UDP: 5}},
		{Kind: StartDaemon, Daemon: &Daemon{Role: Master, Interface: "eth0", SyncID: 3, Group: "ff02::1"}},
		{Kind: StopDaemon, Daemon: &Daemon{Role: Backup}},
		{Kind: AddMarkRule, Position: 3, MarkRule: &MarkRule{Mark: 7, Interface: "eth0", Src: netip.MustParsePrefix("10.0.0.0/8"),
			Dst: netip.MustParsePrefix("192.0.2.1/32"), Protocol: TCP, SrcPorts: PortRange{1024, 65535}, DstPorts: PortRange{80, 80}}},
		{Kind: DeleteMarkRule, MarkRule: &MarkRule{Mark: 1<<32 - 1, Dst: netip.MustParsePrefix("2001:db8::/32")}},
	}
	var got *ChangeRequest
	c := serve(t, &stub{change: func(r *ChangeRequest) (*ChangeReply, error) {
		got = r
		return &ChangeReply{Results: make([]OpResult, len(r.Ops))}, nil
	}})
	reply, err := c.Change(t.Context(), &ChangeRequest{Ops: want})
	if err != nil || reply.Err() != nil {
		t.Fatalf("Change = %v, %v", reply, err)
	}
	if !reflect.DeepEqual(got.Ops, want) {
		t.Errorf("the backend got\n%+v\nwant\n%+v", got.Ops, want)
	}
	if got.OnError != Atomic {
		t.Errorf("OnError = %q when nothing was said, want %q", got.OnError, Atomic)
	}
}

func TestRefusalsKeepTheirCodes(t *testing.T) {
	c := serve(t, &stub{change: func(r *ChangeRequest) (*ChangeReply, error) {
		return &ChangeReply{Results: []OpResult{
			{Error: AsError(fmt.Errorf("add %v: %w", web, Skipped))},
			{Error: AsError(fmt.Errorf("add real server %v to %v: %w", rs11, web, ServerExists))},
		}}, nil
	}})
	reply, err := c.Change(t.Context(), &ChangeRequest{Ops: []Op{{Kind: Flush}, {Kind: Flush}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := reply.Err(); !errors.Is(err, ServerExists) {
		t.Errorf("reply.Err() = %v, want the refusal that made the other be skipped, %v", err, ServerExists)
	}
	if want := "add real server 10.1.0.11:80 to tcp 10.9.0.100:80: server-exists"; reply.Err().Error() != want {
		t.Errorf("message %q, want %q", reply.Err(), want)
	}

	b := &stub{err: fmt.Errorf("service %v: %w", web, ServiceNotFound)}
	c = serve(t, b)
	if _, err := c.Services(t.Context(), &web); !errors.Is(err, ServiceNotFound) {
		t.Errorf("Services = %v, want %v", err, ServiceNotFound)
	}
	if b.key == nil || *b.key != web {
		t.Errorf("the backend was asked for %v, want %v", b.key, web)
	}
	b.err = errors.New("disk on fire")
	if _, err := c.Status(t.Context()); !errors.Is(err, Internal) || err.Error() != "disk on fire" {
		t.Errorf("Status = %v, want an internal error with its text", err)
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	c := serve(t, &stub{})
	for path, want := range map[string]string{
		"/v1/services": `{"services":[]}`,
		"/v1/daemons":  `{"daemons":[]}`,
		"/v1/marks":    `{"rules":[]}`,
		"/v1/sysctl":   `{"settings":[]}`,
		"/v1/timeouts": `{"tcpSeconds":900,"tcpFinSeconds":120,"udpSeconds":300}`,
		"/v1/version":  `{"uvs":"test","ipvs":"1.2.1","connTableSize":4096}`,
	} {
		if status, got := raw(t, c, "GET", path, ""); status != 200 || got != want+"\n" {
			t.Errorf("GET %s = %d %q, want 200 %q", path, status, got, want)
		}
	}
	if status, got := raw(t, c, "POST", "/v1/doctor", ""); status != 200 || !strings.Contains(got, `"findings":[],"unchecked":[]`) {
		t.Errorf("POST /v1/doctor = %d %q", status, got)
	}
	if d, err := c.Doctor(t.Context()); err != nil || d.Findings == nil || d.Servers != 2 {
		t.Errorf("Doctor() = %+v, %v", d, err)
	}
	if status, got := raw(t, c, "POST", "/v1/change", `{"ops":[]}`); status != 200 || got != "{\"results\":[]}\n" {
		t.Errorf("an empty change = %d %q, want no results", status, got)
	}
}

// malformed holds bodies of POST /v1/change that must be refused, each by what is wrong with it.
var malformed = map[string]string{
	"nothing":               ``,
	"not JSON":              `flush`,
	"cut short":             `{"ops":[{"op":"flush"}`,
	"something behind":      `{"ops":[{"op":"flush"}]} {"ops":[]}`,
	"not an object":         `[{"op":"flush"}]`,
	"null":                  `null`,
	"no ops":                `{}`,
	"null ops":              `{"ops":null}`,
	"ops not a list":        `{"ops":{"op":"flush"}}`,
	"unknown field":         `{"ops":[{"op":"flush"}],"force":true}`,
	"unknown field of op":   `{"ops":[{"op":"flush","when":"now"}]}`,
	"repeated field":        `{"ops":[],"ops":[{"op":"flush"}]}`,
	"repeated but for case": `{"ops":[],"OPS":[{"op":"flush"}]}`,
	"nested too deep":       `{"ops":[{"op":"flush","service":` + strings.Repeat(`[`, 20) + strings.Repeat(`]`, 20) + `}]}`,
	"unknown onError":       `{"ops":[{"op":"flush"}],"onError":"retry"}`,
	"null op":               `{"ops":[null]}`,
	"op without kind":       `{"ops":[{}]}`,
	"unknown kind":          `{"ops":[{"op":"destroy"}]}`,
	"kind in other case":    `{"ops":[{"op":"Flush"}]}`,
	"good, then bad":        `{"ops":[{"op":"flush"},{"op":"destroy"}]}`,
	"flush of a service":    `{"ops":[{"op":"flush","service":{"protocol":"tcp","address":"10.0.0.1","port":80}}]}`,
	"service missing":       `{"ops":[{"op":"delete-service"}]}`,
	"server missing":        `{"ops":[{"op":"delete-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80}}]}`,
	"config missing":        `{"ops":[{"op":"add-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80}}]}`,
	"scheduler missing":     `{"ops":[{"op":"add-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"serviceConfig":{}}]}`,
	"protocol missing":      `{"ops":[{"op":"delete-service","service":{"address":"10.0.0.1","port":80}}]}`,
	"protocol unknown":      `{"ops":[{"op":"delete-service","service":{"protocol":"icmp","address":"10.0.0.1"}}]}`,
	"protocol of templates": `{"ops":[{"op":"delete-service","service":{"protocol":"ip","address":"10.0.0.1"}}]}`,
	"address missing":       `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","port":80}}]}`,
	"address a name":        `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"www.example","port":80}}]}`,
	"address empty":         `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"","port":80}}]}`,
	"address with zone":     `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"fe80::1%eth0","port":80}}]}`,
	"address IPv4-mapped":   `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"::ffff:10.0.0.1","port":80}}]}`,
	"port too high":         `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"10.0.0.1","port":65536}}]}`,
	"port negative":         `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"10.0.0.1","port":-1}}]}`,
	"port a string":         `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"10.0.0.1","port":"80"}}]}`,
	"port broken":           `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80.5}}]}`,
	"mark and address":      `{"ops":[{"op":"delete-service","service":{"fwmark":1,"family":"ipv4","protocol":"tcp","address":"10.0.0.1"}}]}`,
	"mark without family":   `{"ops":[{"op":"delete-service","service":{"fwmark":1}}]}`,
	"mark of other family":  `{"ops":[{"op":"delete-service","service":{"fwmark":1,"family":"ipx"}}]}`,
	"mark 0":                `{"ops":[{"op":"delete-service","service":{"fwmark":0,"family":"ipv4"}}]}`,
	"mark too high":         `{"ops":[{"op":"delete-service","service":{"fwmark":4294967296,"family":"ipv4"}}]}`,
	"mask of other family":  `{"ops":[{"op":"add-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"serviceConfig":{"scheduler":"rr","netmask":"64"}}]}`,
	"mask nonsense":         `{"ops":[{"op":"add-service","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"serviceConfig":{"scheduler":"rr","netmask":"255.255"}}]}`,
	"mask too long":         `{"ops":[{"op":"add-service","service":{"fwmark":1,"family":"ipv6"},"serviceConfig":{"scheduler":"rr","netmask":"129"}}]}`,
	"method missing":        `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"weight":1}}]}`,
	"method unknown":        `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"proxy","weight":1}}]}`,
	"tunnel without method": `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"route","weight":1,"tunnel":{"type":"ipip"}}}]}`,
	"tunnel unknown":        `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"vxlan"}}}]}`,
	"GUE without port":      `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"gue"}}}]}`,
	"IPIP with port":        `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"ipip","port":5}}}]}`,
	"GRE remote checksum":   `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"gre","checksum":"remote"}}}]}`,
	"IPIP with checksum":    `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"ipip","checksum":"full"}}}]}`,
	"checksum unknown":      `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"tunnel","weight":1,"tunnel":{"type":"gre","checksum":"crc"}}}]}`,
	"server with zone":      `{"ops":[{"op":"delete-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"fe80::1%eth0","port":80}}]}`,
	"upper negative":        `{"ops":[{"op":"add-server","service":{"protocol":"tcp","address":"10.0.0.1","port":80},"server":{"address":"10.0.0.2","port":80},"serverConfig":{"method":"route","weight":1,"upper":-1}}]}`,
	"timeouts missing":      `{"ops":[{"op":"set-timeouts"}]}`,
	"timeout negative":      `{"ops":[{"op":"set-timeouts","timeouts":{"tcpSeconds":-1,"tcpFinSeconds":0,"udpSeconds":0}}]}`,
	"daemon role unknown":   `{"ops":[{"op":"start-daemon","daemon":{"role":"primary","interface":"eth0"}}]}`,
	"daemon group unicast":  `{"ops":[{"op":"start-daemon","daemon":{"role":"master","group":"10.0.0.1"}}]}`,
	"sync id too high":      `{"ops":[{"op":"start-daemon","daemon":{"role":"master","syncID":256}}]}`,
	"mark rule missing":     `{"ops":[{"op":"add-mark-rule"}]}`,
	"mark rule of 0":        `{"ops":[{"op":"add-mark-rule","markRule":{"mark":0}}]}`,
	"mark rule's host bare": `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"dst":"10.0.0.1"}}]}`,
	"mark rule's families":  `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"dst":"10.0.0.1/32","src":"2001:db8::/32"}}]}`,
	"mark rule mapped":      `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"dst":"::ffff:10.0.0.1/128"}}]}`,
	"mark rule's protocol":  `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"protocol":"icmp"}}]}`,
	"mark rule's ports":     `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"dstPorts":"90-80"}}]}`,
	"mark rule's port 0":    `{"ops":[{"op":"add-mark-rule","markRule":{"mark":1,"dstPorts":"0"}}]}`,
	"position before all":   `{"ops":[{"op":"add-mark-rule","position":-1,"markRule":{"mark":1}}]}`,
	"position of a removal": `{"ops":[{"op":"delete-mark-rule","position":1,"markRule":{"mark":1}}]}`,
	"too many operations":   `{"ops":[` + strings.Repeat(`{},`, MaxOps) + `{}]}`,
}

func TestMalformedBodiesChangeNothing(t *testing.T) {
	b := &stub{}
	c := serve(t, b)
	for name, body := range malformed {
		t.Run(name, func(t *testing.T) {
			status, reply := raw(t, c, "POST", "/v1/change", body)
			if status != http.StatusBadRequest || !strings.Contains(reply, `"code":"bad-request"`) {
				t.Errorf("status %d, %s; want 400 and the code bad-request", status, reply)
			}
		})
	}
	if n := b.changes.Load(); n != 0 {
		t.Errorf("the backend was asked for %d changes, want none", n)
	}
}

func TestRequestsOutOfPlace(t *testing.T) {
	b := &stub{}
	c := serve(t, b)
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		code                     Code
	}{
		{"no such path", "GET", "/v2/services", "", 404, NotFound},
		{"path with a tail", "GET", "/v1/services/", "", 404, NotFound},
		{"wrong method", "GET", "/v1/change", "", 405, BadMethod},
		{"wrong method", "DELETE", "/v1/services", "", 405, BadMethod},
		{"body with a read", "GET", "/v1/status", "{}", 400, BadRequest},
		{"parameters with a change", "POST", "/v1/change?dry=1", `{"ops":[]}`, 400, BadRequest},
		{"parameters where none belong", "GET", "/v1/status?x=1", "", 400, BadRequest},
		{"unknown parameter", "GET", "/v1/services?vip=1", "", 400, BadRequest},
		{"parameter twice", "GET", "/v1/services?protocol=tcp&protocol=udp&address=10.0.0.1&port=1", "", 400, BadRequest},
		{"half a service", "GET", "/v1/services?address=10.0.0.1", "", 400, BadRequest},
		{"port too high", "GET", "/v1/connections?protocol=tcp&address=10.0.0.1&port=65536", "", 400, BadRequest},
		{"bad escape", "GET", "/v1/connections?protocol=%zz", "", 400, BadRequest},
		{"mark without family", "GET", "/v1/connections?fwmark=1", "", 400, BadRequest},
		{"parameters with marks", "GET", "/v1/marks?mark=1", "", 400, BadRequest},
		{"another parameter of settings", "GET", "/v1/sysctl?names=a", "", 400, BadRequest},
		{"bad escape in a name", "GET", "/v1/sysctl?name=%zz", "", 400, BadRequest},
		{"too many names", "GET", "/v1/sysctl?" + strings.Repeat("name=a&", MaxSettings+1), "", 400, BadRequest},
		{"parameters with a setting", "POST", "/v1/sysctl?name=a", `{"settings":[{"name":"a","value":"1"}]}`, 400, BadRequest},
		{"no settings", "POST", "/v1/sysctl", `{"settings":[]}`, 400, BadRequest},
		{"setting without name", "POST", "/v1/sysctl", `{"settings":[{"value":"1"}]}`, 400, BadRequest},
		{"setting with default", "POST", "/v1/sysctl", `{"settings":[{"name":"a","value":"1","default":"2"}]}`, 400, BadRequest},
		{"setting with number", "POST", "/v1/sysctl", `{"settings":[{"name":"a","value":1}]}`, 400, BadRequest},
		{"too many settings", "POST", "/v1/sysctl", `{"settings":[{"name":"a","value":"1"}` +
			strings.Repeat(`,{"name":"a","value":"1"}`, MaxSettings) + `]}`, 400, BadRequest},
		{"drain of nobody", "POST", "/v1/drain", `{}`, 400, BadRequest},
		{"drain by a name", "POST", "/v1/drain", `{"address":"rs1"}`, 400, BadRequest},
		{"drain with a zone", "POST", "/v1/drain", `{"address":"fe80::1%eth0"}`, 400, BadRequest},
		{"drain of IPv4 as IPv6", "POST", "/v1/undrain", `{"address":"::ffff:10.0.0.1"}`, 400, BadRequest},
		{"drain before now", "POST", "/v1/drain", `{"address":"10.0.0.1","withinSeconds":-1}`, 400, BadRequest},
		{"drain in a year", "POST", "/v1/drain", `{"address":"10.0.0.1","withinSeconds":31536000}`, 400, BadRequest},
		{"drain in half a service", "POST", "/v1/drain", `{"address":"10.0.0.1","service":{"protocol":"tcp"}}`, 400, BadRequest},
		{"drain with more", "POST", "/v1/undrain", `{"address":"10.0.0.1","withinSeconds":1}`, 400, BadRequest},
		{"drain twice", "POST", "/v1/drain", `{"address":"10.0.0.1","address":"10.0.0.2"}`, 400, BadRequest},
		{"parameters with a drain", "POST", "/v1/drain?address=10.0.0.1", `{"address":"10.0.0.1"}`, 400, BadRequest},
		{"asking a doctor by GET", "GET", "/v1/doctor", "", 405, BadMethod},
		{"telling a doctor", "POST", "/v1/doctor", `{}`, 400, BadRequest},
		{"parameters for a doctor", "POST", "/v1/doctor?quick=1", "", 400, BadRequest},
		{"too long", "POST", "/v1/change", strings.Repeat(" ", MaxBody+1), 413, TooLarge},
	} {
		status, reply := raw(t, c, row.method, row.path, row.body)
		if status != row.status || !strings.Contains(reply, `"code":"`+string(row.code)+`"`) {
			t.Errorf("%s: %s %s = %d %s, want %d %s", row.name, row.method, row.path, status, reply, row.status, row.code)
		}
	}
	if n := b.changes.Load(); n != 0 || b.set != nil {
		t.Errorf("the backend was asked for %d changes and to set %v, want none", n, b.set)
	}
}

func TestSettingsAndMarksArriveAsTheyWereSent(t *testing.T) {
	b := &stub{marks: []MarkRule{{Mark: 3, DstPorts: PortRange{1, 2}}, {Mark: 2, Src: netip.MustParsePrefix("10.0.0.0/8")}}}
	c := serve(t, b)
	if got, err := c.Marks(t.Context()); err != nil || !reflect.DeepEqual(got, b.marks) {
		t.Errorf("Marks = %v, %v, want %v", got, err, b.marks)
	}
	names := []string{"vs.sloppy_tcp", "net/ipv4/vs/am&droprate"}
	if _, err := c.Settings(t.Context(), names); err != nil || !reflect.DeepEqual(b.asked, names) {
		t.Errorf("Settings: the backend was asked for %q, %v, want %q", b.asked, err, names)
	}
	if _, err := c.Settings(t.Context(), nil); err != nil || len(b.asked) != 0 {
		t.Errorf("Settings: the backend was asked for %q, %v, want all", b.asked, err)
	}
	want := []Setting{{Name: "vs.sync_threshold", Value: "3 50"}}
	if got, err := c.Set(t.Context(), want); err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(b.set, want) {
		t.Errorf("Set = %v, %v, the backend got %v; want %v", got, err, b.set, want)
	}
	b.err = fmt.Errorf("setting x: %w", SettingNotFound)
	if _, err := c.Set(t.Context(), want); !errors.Is(err, SettingNotFound) {
		t.Errorf("Set = %v, want %v", err, SettingNotFound)
	}
}

func TestABackendThatMiscountsIsAnInternalError(t *testing.T) {
	c := serve(t, &stub{change: func(*ChangeRequest) (*ChangeReply, error) { return &ChangeReply{}, nil }})
	if _, err := c.Change(t.Context(), &ChangeRequest{Ops: []Op{{Kind: Flush}}}); !errors.Is(err, Internal) {
		t.Errorf("Change = %v, want %v", err, Internal)
	}
}

func TestServeAnswersWhatIsInFlightWhenItEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := &stub{change: func(r *ChangeRequest) (*ChangeReply, error) {
		cancel()
		time.Sleep(50 * time.Millisecond)
		return &ChangeReply{Results: make([]OpResult, len(r.Ops))}, nil
	}}
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, b) }()
	c := NewClient(path)
	defer c.Close()
	if reply, err := c.Change(t.Context(), &ChangeRequest{Ops: []Op{{Kind: Flush}}}); err != nil || reply.Err() != nil {
		t.Errorf("Change = %v, %v when the server was told to end meanwhile, want an answer", reply, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket still answers after Serve returned")
	}
}
