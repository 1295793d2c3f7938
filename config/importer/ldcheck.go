package importer

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"uvs/config"
)

// ldCheck is how one real server is checked while that is mapped.
type ldCheck struct {
	*ldMapper
	s                *ldService
	real             *directive
	server           *config.Server
	port             int     // the server's own, for checks
	request, receive *string // the server's own, or nil
}

// all are the checks of the server, by checktype.
func (c *ldCheck) all() []check {
	d := c.s.at.find("checktype")
	kind := "negotiate"
	if d != nil {
		kind = d.arg(0)
		d.exact("checks")
	}
	switch kind {
	case "on":
		c.unchecked()
		return nil
	case "off":
		d.approx("weight: 0 for all servers, and no sorry server")
		c.s.kind = "off"
		c.unchecked()
		return nil
	case "negotiate":
		return c.fitting(c.negotiate(c.settings(false, 1)))
	case "connect":
		return c.fitting(c.connect())
	case "ping":
		return c.fitting(c.ping())
	case "external", "external-perl":
		return c.fitting(c.external(d))
	}
	if n, err := whole(kind, 0, 1000); err == nil {
		d.approx(fmt.Sprintf("checks: a connection each interval, and beside it a negotiation every %d intervals", n+1))
		return append(c.fitting(c.connect()), c.fitting(c.negotiate(c.settings(false, n+1)))...)
	}
	d.missing("no checktype that ldirectord has")
	return nil
}

// unchecked grades what says what checks would be.
func (c *ldCheck) unchecked() {
	for _, in := range c.s.at.block {
		switch in.name {
		case "service", "request", "receive", "checkport", "virtualhost", "login", "passwd", "database", "secret", "httpmethod", "checkcommand":
			in.needless("nothing is checked")
		}
	}
}

// fitting leaves out checks that uvs can't make, and says so of the directive that asks for them.
func (c *ldCheck) fitting(k *check) []check {
	if k == nil {
		return nil
	}
	if _, err := fits(*k); err != nil {
		blame := c.s.at.find("service")
		if blame == nil {
			blame = c.s.at
		}
		blame.missing("the check: " + err.Error())
		return nil
	}
	return []check{*k}
}

// settings maps how often and how patiently a check asks. connecting says which timeout counts; each is how many rounds
// apart it comes.
func (c *ldCheck) settings(connecting bool, each int) config.CheckSettings {
	v := c.s.at
	k := config.CheckSettings{Rise: 1, Fall: 1}
	interval := c.global.find("checkinterval")
	if own := v.find("checkinterval"); own != nil {
		if fork := c.global.find("fork"); fork != nil && fork.arg(0) == "yes" {
			interval = own
		} else {
			own.needless("counts with fork=yes alone")
		}
	}
	k.Interval = c.time(interval, 10, "checks.interval: from one probe's beginning to the next one's, not between rounds", true)
	first, second, otherwise := "negotiatetimeout", "checktimeout", 30
	if connecting {
		first, second, otherwise = second, first, 5
	}
	timeout := c.either(v, first)
	if timeout == nil {
		timeout = c.either(v, second)
	}
	k.Timeout = c.time(timeout, otherwise, "checks.timeout", false)
	if d := c.either(v, "failurecount"); d != nil {
		if n, err := whole(d.arg(0), 1, 1000); err != nil {
			d.missing(err.Error())
		} else {
			k.Fall = n
			d.exact("checks.fall")
		}
	}
	k.Interval *= config.Duration(each)
	k.Interval, _ = clamp(time.Duration(k.Interval), minInterval, maxInterval)
	if c.method() != "nat" {
		k.Via = "direct" // ldirectord asks the server's own address
	}
	if d := v.find("checkport"); d != nil {
		if p, err := port(d.arg(0)); err != nil || p == 0 {
			d.missing("a port from 1 to 65535 is wanted")
		} else {
			k.Port = p
			d.exact("checks.port")
		}
	}
	if k.Port == 0 && c.port != c.s.port && (c.server.Port != c.port || c.method() != "nat") {
		k.Port = uint16(c.port)
	}
	if int(k.Port) == c.serves() {
		k.Port = 0
	}
	return k
}

func (c *ldCheck) method() string {
	if c.server.Method != "" {
		return c.server.Method
	}
	return c.s.service.Method
}

// serves is the port that packets to the server have.
func (c *ldCheck) serves() int {
	if c.server.Port != 0 {
		return c.server.Port
	}
	return c.s.port
}

// time maps a number of seconds, or takes the default.
func (c *ldCheck) time(d *directive, otherwise int, key string, approximately bool) config.Duration {
	v := time.Duration(otherwise) * time.Second
	if d == nil {
		return config.Duration(v)
	}
	n, err := whole(d.arg(0), 1, 1<<31-1)
	if err != nil {
		d.missing(err.Error())
		return config.Duration(v)
	}
	t, cut := clamp(time.Duration(n)*time.Second, minInterval, maxInterval)
	switch {
	case cut:
		d.approx(key + ": a day is the most")
	case approximately:
		d.approx(key)
	default:
		d.exact(key)
	}
	return t
}

// connect is the check of a connection; for UDP ldirectord pings instead.
func (c *ldCheck) connect() *check {
	if protocols(&c.s.service)[0] == "udp" {
		return c.ping()
	}
	k := check{CheckSettings: c.settings(true, 1)}
	k.Kind = "tcp"
	c.portOf(&k, "")
	return &k
}

func (c *ldCheck) ping() *check {
	k := check{CheckSettings: c.settings(true, 1)}
	k.Kind, k.Port, k.Via = "icmp", 0, ""
	if d := c.either(c.s.at, "checkcount"); d != nil {
		if n, err := whole(d.arg(0), 1, 1000); err != nil {
			d.missing(err.Error())
		} else {
			k.Fall = max(k.Fall, n)
			d.approx("checks.fall: one packet is an attempt")
		}
	}
	return &k
}

// external maps checkcommand: a program with the virtual service's and the real server's address and port.
func (c *ldCheck) external(t *directive) *check {
	k := check{CheckSettings: c.settings(true, 1)}
	k.Kind, k.Port, k.Via = "exec", 0, ""
	d := c.s.at.find("checkcommand")
	if d == nil || d.arg(0) == "" {
		t.needless("without checkcommand every server counts as up")
		return nil
	}
	words := quoteAll(literal(append(strings.Fields(d.arg(0)), c.s.address, fmt.Sprint(c.s.port))...))
	k.options = map[string]any{execCommand: strings.Join(append(words, "%h", "%p"), " ")}
	d.exact("checks." + execCommand)
	if t.arg(0) == "external-perl" {
		t.approx("checks: the script is started each time")
	}
	return &k
}

// portOf sees to it that a service of a mark, which has no port, has one to ask.
func (c *ldCheck) portOf(k *check, service string) {
	if k.Port != 0 || c.serves() != 0 {
		return
	}
	for p, name := range ldPorts {
		if name == service {
			k.Port = uint16(p)
			c.real.approx(fmt.Sprintf("services.servers: the check asks port %d, since none is named", p))
			return
		}
	}
	c.real.missing("its check has no port to ask; add checks.port")
	k.Port = 80
}

// negotiate is the check that speaks the service's protocol.
func (c *ldCheck) negotiate(settings config.CheckSettings) *check {
	fill := ldKinds[c.s.kind]
	if fill == nil {
		return nil
	}
	k := &check{CheckSettings: settings, options: map[string]any{}}
	if d := c.s.at.find("service"); d != nil {
		d.exact("checks.kind")
	}
	fill(c, k)
	c.portOf(k, c.s.kind)
	return k
}

// value is a directive's text; the server's own request and receive come first.
func (c *ldCheck) value(name string) string {
	switch {
	case name == "request" && c.request != nil:
		return *c.request
	case name == "receive" && c.receive != nil:
		return *c.receive
	}
	if d := c.s.at.find(name); d != nil {
		return d.arg(0)
	}
	return ""
}

// take puts directives into options of the kind.
func (c *ldCheck) take(k *check, keys map[string]string) {
	for name, key := range keys {
		if v := c.value(name); v != "" {
			k.options[key] = v
		}
	}
	c.s.uses(keys)
}

// pattern puts the regular expression receive into an option.
func (c *ldCheck) pattern(k *check, key string) {
	v := c.value("receive")
	if v == "" {
		return
	}
	d := c.s.at.find("receive")
	if c.receive != nil || d == nil {
		d = c.real
	}
	if _, err := regexp.Compile(v); err != nil {
		d.missing("Go's regular expressions (RE2) don't have this: " + err.Error())
		return
	}
	k.options[key] = v
	d.approx("checks." + key + ": Go's regular expressions (RE2), not Perl's")
}

// http maps what http, https and http_proxy have.
func (c *ldCheck) http(k *check, kind string) {
	k.Kind = kind
	c.take(k, map[string]string{"httpmethod": "method", "virtualhost": "host"})
	if m, is := k.options["method"].(string); is {
		k.options["method"] = strings.ToUpper(m)
	}
	k.options["status"] = "200-299"
	c.pattern(k, "match")
	path := c.value("request")
	d := c.s.at.find("request")
	if c.request != nil || d == nil {
		d = c.real
	}
	if u, err := url.Parse(path); err == nil && u.Host != "" && c.s.kind != "http_proxy" {
		if k.options["host"] == nil {
			k.options["host"] = u.Host
		}
		path = u.RequestURI()
		d.approx("checks.path and checks.host: always asked of the real server itself")
	} else if path != "" && path[0] != '/' && c.s.kind != "http_proxy" {
		path = "/" + path
	}
	if path != "" {
		k.options["path"] = path
		if d.grade < Exact {
			d.exact("checks.path")
		}
	}
	if s := c.s.at.find("service"); s != nil {
		s.approx("checks.kind: redirections are not followed")
	}
}
