package main

import (
	"net/netip"
	"time"

	"uvs/control/api"
)

// operation is a method of a path. Who adds one to control/api's handler adds it here and runs go generate ./control/api.
type operation struct {
	method, path, id, summary string
	parameters                []string // names in parameters
	request                   any      // an example of the body, which gives its type; nil: there is none
	reply                     any      // likewise; of a stream it is a line
	stream                    bool
	returns                   string // what the reply is
	conflict                  string // what it is with status 409; empty: that is a refusal like any other
}

// parameters are those of queries.
var parameters = object{
	"protocol":  parameter("protocol", "The virtual service's protocol; with address and port.", object{"type": "string", "enum": []string{api.TCP, api.UDP, api.SCTP}}),
	"address":   parameter("address", "The virtual service's address.", object{"type": "string"}),
	"port":      parameter("port", "The virtual service's port.", object{"type": "integer", "minimum": 0, "maximum": 65535}),
	"fwmark":    parameter("fwmark", "The firewall mark of a virtual service; with family, instead of protocol, address and port.", object{"type": "integer", "minimum": 1, "maximum": 4294967295}),
	"family":    parameter("family", "The family of the firewall mark's service.", object{"type": "string", "enum": []string{api.IPv4, api.IPv6}}),
	"name":      parameter("name", "The name of a setting; may be repeated. Without it all are returned.", object{"type": "array", "items": object{"type": "string"}}),
	"client":    parameter("client", "Frames from or to this client: an address, or address and port.", object{"type": "string"}),
	"server":    parameter("server", "Frames to or from this real server: an address, or address and port.", object{"type": "string"}),
	"interface": parameter("interface", "Frames that came in by this interface.", object{"type": "string"}),
	"verdict":   parameter("verdict", "Frames that ended so, or in that class: forwarded, answered, passed, dropped. May be repeated.", object{"type": "array", "items": object{"type": "string"}}),
	"frames":    parameter("frames", "true: with the frames' bytes.", object{"type": "string", "enum": []string{"true", "false"}}),
}

func parameter(name, text string, schema object) object {
	return object{"name": name, "in": "query", "description": text, "schema": schema}
}

var byService = []string{"protocol", "address", "port", "fwmark", "family"}

// What the examples are about.
var (
	web    = api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	rs     = api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80}
	wlc    = api.ServiceConfig{Scheduler: "wlc"}
	direct = api.ServerConfig{Method: api.Route, Weight: 1}
	rsAddr = netip.AddrPortFrom(rs.Address, rs.Port)
	client = netip.MustParseAddrPort("198.51.100.7:40001")
	vip    = netip.AddrPortFrom(web.Address, web.Port)
	conn   = api.Connection{Protocol: api.TCP, Client: client, Virtual: vip, Server: rsAddr, State: "ESTABLISHED", ExpiresSeconds: 899}
	five   = uint32(300)
	soon   = uint32(42)
	drains = api.DrainsReply{Drains: []api.Drain{{
		Service: web, Server: rs, Weight: 1, State: api.Draining, Active: 3, Inactive: 1, Ended: 7, ElapsedSeconds: 20, LeftSeconds: &five, EmptyInSeconds: &soon,
	}}}
	reloaded = api.Reload{File: "/etc/uvs/uvs.yaml", Differences: []api.Difference{{Kind: api.Changed, Service: &web, Server: &rs, Text: "weight 1 -> 2"}},
		Restart: []string{}, Errors: []api.FileError{}}
	even    = api.ShadowImbalance{MaxMean: 1, Jain: 1}
	shadows = api.ShadowsReply{OneIn: 1, Shadows: []api.Shadow{{Service: web, Scheduler: "wlc", Since: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Seconds: 60,
		Trials: []api.ShadowTrial{{Scheduler: "wlc", Real: true, Offered: 1000, Returning: 100, Moved: 48, New: even, Held: even, Samples: 60,
			Servers: []api.ShadowServer{{Address: rsAddr, Weight: 1, Conns: 500, Fair: 500, Active: 3, Inactive: 1, Peak: 9}}}}}}}
	reuse  = api.Setting{Name: "net.ipv4.vs.conn_reuse_mode", Value: "1"}
	probed = api.ProbeOutcome{Time: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Milliseconds: 0.4, Text: "connection refused"}
)

var operations = []operation{
	{method: "POST", path: "/v1/change", id: "change", summary: "Applies a list of operations as one change.",
		request: &api.ChangeRequest{OnError: api.Atomic, Ops: []api.Op{
			{Kind: api.AddService, Service: &web, ServiceConfig: &wlc}, {Kind: api.AddServer, Service: &web, Server: &rs, ServerConfig: &direct}}},
		reply: &api.ChangeReply{Results: []api.OpResult{{}, {}}}, returns: "Every operation was applied.",
		conflict: "An operation was refused: its result says why, and onError what became of the others."},
	{method: "GET", path: "/v1/services", id: "services", summary: "Virtual services with their real servers, counters and rates.", parameters: byService,
		reply: &api.ServicesReply{Services: []api.Service{{ServiceKey: web, Config: wlc, Servers: []api.Server{{ServerKey: rs, Config: direct, Active: 3}}}}}, returns: "All services, or the one named."},
	{method: "GET", path: "/v1/connections", id: "connections", summary: "Connections and persistence templates.", parameters: byService,
		stream: true, reply: &conn, returns: "One JSON object a line. If the list breaks off, the last line is an ErrorReply."},
	{method: "GET", path: "/v1/timeouts", id: "timeouts", summary: "The timeouts of connections that can be set.",
		reply: &api.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}, returns: "They are changed by an operation of a change."},
	{method: "GET", path: "/v1/daemons", id: "daemons", summary: "The connection sync daemons.",
		reply: &api.DaemonsReply{Daemons: []api.Daemon{{Role: api.Master, Interface: "eth0", MaxLen: 1472, Group: "224.0.0.81", Port: 8848, TTL: 1}}}, returns: "Those that run."},
	{method: "GET", path: "/v1/marks", id: "marks", summary: "The rules that give packets firewall marks.",
		reply: &api.MarksReply{Rules: []api.MarkRule{{Mark: 7, Dst: netip.MustParsePrefix("192.0.2.100/32"), Protocol: api.TCP, DstPorts: api.PortRange{First: 80, Last: 443}}}}, returns: "In the order in which they decide."},
	{method: "GET", path: "/v1/sysctl", id: "settings", summary: "The director's settings.", parameters: []string{"name"},
		reply: &api.SettingsReply{Settings: []api.Setting{reuse}}, returns: "Those named, in their order, or all."},
	{method: "POST", path: "/v1/sysctl", id: "set", summary: "Changes settings, all or none.",
		request: &api.SettingsRequest{Settings: []api.Setting{reuse}}, reply: &api.SettingsReply{Settings: []api.Setting{reuse}}, returns: "As they are now."},
	{method: "POST", path: "/v1/explain", id: "explain", summary: "Says what would become of a packet, and changes nothing.",
		request: &api.ExplainRequest{Protocol: api.TCP, Client: client, Virtual: vip},
		reply: &api.Explanation{Service: &web, Scheduler: "wlc", Owned: true, Known: "none", Scheduled: true, Server: &rsAddr, Method: api.Route,
			Servers: []api.ExplainedServer{{ServerKey: rs, Method: api.Route, Weight: 1, State: "eligible", Picked: true}},
			NextHop: &api.ExplainedHop{Status: "ready", Interface: "eth0", MAC: "02:00:00:00:00:0b"}, MTU: 1500, Fits: true,
			Verdict: "forwarded-dr", Meaning: "sent to 10.0.0.11:80 by direct routing"}, returns: "Where it would go, and why."},
	{method: "POST", path: "/v1/doctor", id: "doctor", summary: "Asks the network for mistakes around the director, and changes nothing. It takes some seconds.",
		reply: &api.Diagnosis{Findings: []api.Finding{{Kind: api.FindingARP, Host: &rs.Address, MAC: "02:00:00:00:00:0b", Interface: "eth0",
			What:     "the real server 10.0.0.11 (02:00:00:00:00:0b) answers ARP for 192.0.2.100 on eth0: clients may go there, past this director",
			Seen:     "asked on eth0 by ARP who has 192.0.2.100: 02:00:00:00:00:0b answered or claimed it, beside this director",
			Remedies: []api.Remedy{{On: "real server", System: "Linux", Do: []string{"sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"}}},
		}}, Unchecked: []string{}, Addresses: 1, Servers: 2, Probes: 2, Milliseconds: 1100},
		returns: "What is wrong, how that was seen, and what mends it."},
	{method: "POST", path: "/v1/drain", id: "drain", summary: "Takes a real server's weight and empties it, by a deadline if there is one.",
		request: &api.DrainRequest{Address: rs.Address, WithinSeconds: &five}, reply: &drains, returns: "The servers that it chose."},
	{method: "GET", path: "/v1/drain", id: "drains", summary: "The real servers that are being drained.", reply: &drains, returns: "All of them, those that are empty too until they get their weights back."},
	{method: "POST", path: "/v1/undrain", id: "undrain", summary: "Gives servers that are being drained their weights back.",
		request: &api.UndrainRequest{Address: rs.Address}, reply: &drains, returns: "Those that it chose, as they stood."},
	{method: "POST", path: "/v1/reload", id: "reload", summary: "Reads the configuration file again and applies what differs as one change, or says what that would be.",
		request: &api.ReloadRequest{DryRun: true}, reply: &reloaded, returns: "What differs.",
		conflict: "Something is wrong with the file, or it could not be applied: errors says all of it, and nothing was changed."},
	{method: "POST", path: "/v1/save", id: "save", summary: "Makes the configuration file say what the director has, or shows what it would say.",
		request: &api.SaveRequest{}, reply: &api.Saved{File: reloaded.File, Text: "services: []\n", Differences: []api.Difference{}}, returns: "The file's text, and what was edited in it."},
	{method: "POST", path: "/v1/shadows", id: "shadow", summary: "Tries schedulers out on a service's new connections, or ends that; no packet goes another way for it.",
		request: &api.ShadowRequest{Service: web, Add: []string{"wrr", "mh:mh-port"}}, reply: &shadows, returns: "The service's trials."},
	{method: "GET", path: "/v1/shadows", id: "shadows", summary: "What schedulers on trial would have done.", parameters: byService,
		reply: &shadows, returns: "The trials of all services, or of the one named."},
	{method: "GET", path: "/v1/health", id: "health", summary: "How real servers stand: what is known by each check, and what it does to their weights.", parameters: byService,
		reply: &api.HealthReply{Servers: []api.ServerHealth{{Service: web, Server: rs, State: api.StateDown, Why: "tcp: connection refused", ConfiguredWeight: 1,
			Checks: []api.CheckHealth{{ID: "tcp", Kind: "tcp", State: api.StateDown, Address: rsAddr, Last: &probed, InRow: 3,
				Changes: []api.StateChange{{Time: probed.Time, To: api.StateDown, Why: probed.Text}}}}}}},
		returns: "All servers, or those of the service named."},
	{method: "POST", path: "/v1/checktest", id: "checktest", summary: "Makes health checks once, now, and tells every byte; changes nothing.",
		request: &api.CheckTestRequest{Service: web, Server: &rs, Spec: api.CheckSpec{"kind": "tcp", "timeout": "1s"}},
		reply: &api.CheckTestReply{Tests: []api.CheckTest{{Server: rs, ID: "tcp", Address: rsAddr, Outcome: probed,
			Exchange: []api.ExchangePiece{{Sent: true, Milliseconds: 0.3, Data: []byte("PING\r\n")}}}}},
		returns: "What came of each."},
	{method: "GET", path: "/v1/trace", id: "trace", summary: "Frames as they pass, with what becomes of each.",
		parameters: append([]string{"client", "server", "interface", "verdict", "frames"}, byService...), stream: true,
		reply: &api.TraceEvent{Time: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Verdict: "forwarded-dr", Meaning: "to a real server by direct routing", Connection: &conn,
			In:  &api.TraceFrame{Interface: "eth0", Summary: "198.51.100.7:40001 > 192.0.2.100:80 tcp A", Length: 66},
			Out: []api.TraceFrame{{Interface: "eth0", Summary: "198.51.100.7:40001 > 192.0.2.100:80 tcp A", Length: 66}}},
		returns: "One JSON object a line, until the client closes the connection."},
	{method: "GET", path: "/v1/status", id: "status", summary: "The director, its interfaces, workers and packets.",
		reply: &api.Status{Version: "0.1.0", PID: 1234, Started: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Revision: 3,
			Interfaces: []api.Interface{{Name: "eth0", MAC: "02:00:00:00:00:01", Mode: "virtual", Link: "ring", MTU: 1500, Up: true}},
			Workers:    []api.Worker{{CPU: -1}}, Drops: []api.Drop{}, Services: 1, Servers: 2, Connections: 10, Warnings: []api.Warning{}}, returns: "As it is now."},
	{method: "GET", path: "/v1/version", id: "version", summary: "What runs.", reply: &api.Version{UVS: "0.1.0", IPVS: "1.2.1", ConnTableSize: 4096}, returns: "Versions."},
	{method: "GET", path: "/v1/openapi", id: "openapi", summary: "This document.", returns: "OpenAPI 3.1, in JSON."},
}
