package importer

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"uvs/config"
)

// kaCheck is a checker of a real server while it is mapped.
type kaCheck struct {
	*kaMapper
	at       *directive
	server   *config.Server
	defaults kaDefaults
	via      string
	serves   int // the port that packets to the server have

	tcpService bool // and of no other protocol
}

// kaCheckers maps keepalived's checkers. Each returns what all has to succeed.
var kaCheckers = map[string]func(*kaCheck) []check{
	"TCP_CHECK":  (*kaCheck).tcp,
	"HTTP_GET":   (*kaCheck).http,
	"SSL_GET":    (*kaCheck).http,
	"SMTP_CHECK": (*kaCheck).smtp,
	"DNS_CHECK":  (*kaCheck).dns,
	"MISC_CHECK": (*kaCheck).misc,
	"UDP_CHECK":  (*kaCheck).udp,
	"PING_CHECK": (*kaCheck).ping,
	"FILE_CHECK": (*kaCheck).file,
	"BFD_CHECK":  (*kaCheck).bfd,
}

// checks maps the checkers of a real server.
func (m *kaMapper) checks(s *kaService, d *directive, server *config.Server) (list []check) {
	defaults := s.defaults.in(d)
	for _, in := range d.block {
		mapper, is := kaCheckers[in.name]
		if !is {
			continue
		}
		c := &kaCheck{kaMapper: m, at: in, server: server, defaults: defaults.in(in), serves: s.serves(server),
			tcpService: len(s.service.Protocol) == 0 && s.at.arg(0) != "fwmark"}
		if server.Method != "nat" {
			c.via = "direct" // keepalived asks the server's own address
		}
		in.set(Exact, "checks")
		asked, good := mapper(c), 0
		for _, k := range asked {
			absent, err := fits(k)
			if err != nil {
				in.missing(err.Error())
				continue
			}
			good++
			if absent {
				in.approx("checks: a file or user that it names isn't here; uvsd --check wants it where uvsd runs")
			}
			if !slices.ContainsFunc(list, func(x check) bool { return sameCheck(x, k) }) {
				list = append(list, k)
			}
		}
		if len(asked) > 0 && good == 0 {
			in.all(Missing, "there is no check of it")
		}
	}
	return list
}

// target maps where a check goes, and returns the port to ask where that isn't the server's own.
func (c *kaCheck) target(d *directive) (ask uint16) {
	if ip := d.find("connect_ip"); ip != nil {
		if a, err := netip.ParseAddr(ip.arg(0)); err == nil && a.String() == c.server.Address {
			ip.exact("the server's own address")
		} else {
			ip.missing("uvs asks the real server's own address")
		}
	}
	if p := d.find("connect_port"); p != nil {
		if n, err := port(p.arg(0)); err != nil || n == 0 {
			p.missing("no port")
		} else {
			ask = n
			p.exact("checks.port")
		}
	} else if c.server.Method != "nat" {
		ask = uint16(c.server.Port)
	}
	if int(ask) == c.serves {
		ask = 0
	}
	for _, in := range d.block {
		switch in.name {
		case "bindto", "bind_if", "bind_port", "fwmark":
			in.missing("probes leave as the director's routes have it")
		case "log_all_failures":
			in.needless("uvsadm health shows the last failure, the log each change")
		}
	}
	return ask
}

// set maps the settings that all checks have.
func (c *kaCheck) set(kind string, retries int, delay time.Duration) config.CheckSettings {
	k := c.defaults.settings(kind, c.via, retries, delay)
	k.Port = c.target(c.at)
	return k
}

func (c *kaCheck) tcp() []check {
	return []check{{CheckSettings: c.set("tcp", 1, time.Second)}}
}

func (c *kaCheck) ping() []check {
	k := c.set("icmp", 1, time.Second)
	k.Port, k.Via = 0, ""
	return []check{{CheckSettings: k}}
}

func (c *kaCheck) bfd() []check {
	c.at.all(Missing, "uvs speaks no BFD")
	return nil
}

func (c *kaCheck) smtp() []check {
	k := check{CheckSettings: c.set("smtp", 1, time.Second), options: map[string]any{}}
	if h := c.at.find("helo_name"); h != nil {
		k.options[smtpHelo] = h.arg(0)
		h.exact("checks." + smtpHelo)
	}
	list := []check{}
	for _, h := range c.at.block {
		if h.name != "host" {
			continue
		}
		one := k
		h.exact("checks")
		if ip := h.find("connect_ip"); ip != nil && ip.arg(0) != c.server.Address {
			h.all(Missing, "uvs asks the real server's own address")
			continue
		}
		one.Port = c.target(h)
		list = append(list, one)
	}
	if len(list) == 0 {
		list = append(list, k)
	}
	return list
}

func (c *kaCheck) dns() []check {
	k := check{CheckSettings: c.set("dns", 3, 0), options: map[string]any{dnsName: ".", dnsType: "SOA"}}
	if c.tcpService {
		c.at.approx("checks: asks by TCP, which the service speaks, not by UDP")
	}
	if n := c.at.find("name"); n != nil {
		k.options[dnsName] = n.arg(0)
		n.exact("checks." + dnsName)
	}
	if t := c.at.find("type"); t != nil {
		k.options[dnsType] = strings.ToUpper(t.arg(0))
		t.exact("checks." + dnsType)
	}
	return []check{k}
}

func (c *kaCheck) misc() []check {
	if t := c.at.find("misc_timeout"); t != nil {
		c.defaults.timeout = t
	} else {
		c.defaults.timeout = c.defaults.interval // keepalived's default is the checker's interval
	}
	k := check{CheckSettings: c.defaults.settings("exec", "", 0, time.Second), options: map[string]any{}}
	path := c.at.find("misc_path")
	if path == nil || path.arg(0) == "" {
		c.at.all(Missing, "it names no program")
		return nil
	}
	program := path.args
	if len(program) == 1 {
		program = escaped(program[0]) // a path with its arguments in one pair of quotes
	}
	if len(program) == 0 {
		c.at.all(Missing, "it names no program")
		return nil
	}
	k.options[execCommand] = strings.Join(quoteAll(literal(program...)), " ")
	path.exact("checks." + execCommand)
	for _, in := range c.at.block {
		switch in.name {
		case "misc_dynamic":
			k.options["dynamic"] = true
			if w := c.server.Weight; w != nil && *w == 100 {
				in.exact("checks.dynamic")
			} else {
				in.approx("checks.dynamic: 2 less than the status is a percentage of the weight; with the weight 100 it is the weight, as before")
			}
		case "user":
			k.options["run_as"] = in.arg(0)
			if len(in.args) > 1 {
				in.approx("checks.run_as: with the user's own groups")
			} else {
				in.exact("checks.run_as")
			}
		case "connect_timeout":
			in.needless("misc_timeout counts")
		}
	}
	return []check{k}
}

func (c *kaCheck) file() []check {
	name := c.at.find("track_file")
	if name == nil || c.track[name.arg(0)] == nil {
		c.at.all(Missing, "there is no such track_file")
		return nil
	}
	c.at.all(Missing, "a file's number is added to no weight in uvs; weight files are read, factors in them")
	return nil
}

// udp maps UDP_CHECK.
func (c *kaCheck) udp() []check {
	k := check{CheckSettings: c.set("udp", 1, time.Second), options: map[string]any{}}
	if p := c.at.find("payload"); p != nil {
		if b, _, err := hexString(strings.Join(p.args, " ")); err != nil {
			p.missing(err.Error())
		} else {
			k.options["request"] = hexEscapes(b)
			p.exact("checks.request")
		}
	}
	if r := c.at.find("require_reply"); r != nil {
		b, loose, err := hexString(strings.Join(r.args, " "))
		switch {
		case err != nil:
			r.missing(err.Error())
		case len(b) == 0 || len(loose) > 0 && loose[0] != 0:
			k.options["match"] = "^" // whatever, but something
			if len(b) == 0 {
				r.exact("checks.match")
			} else {
				r.approx("checks.match: any answer")
			}
		case loose == nil:
			k.options["expect"] = hexEscapes(b)
			r.approx("checks.expect: an answer shorter than that is not enough")
		default:
			n := slices.IndexFunc(loose, func(m byte) bool { return m != 0 })
			k.options["expect"] = hexEscapes(b[:n])
			r.approx("checks.expect: what stands before the first x")
		}
	}
	for _, name := range []string{"min_reply_length", "max_reply_length"} {
		if d := c.at.find(name); d != nil {
			d.missing("uvs looks at what the answer begins with, not at its length")
		}
	}
	return []check{k}
}

// http maps HTTP_GET and SSL_GET: a check for each url.
func (c *kaCheck) http() (list []check) {
	kind := "http"
	if c.at.name == "SSL_GET" {
		kind = "https"
	}
	k := c.set(kind, 1, 3*time.Second)
	if t := c.defaults.timeout; t != nil && t.grade == Exact {
		t.approx("checks.timeout: of the whole probe, not of each of its steps")
	}
	options := map[string]any{"version": "1.0"}
	for _, in := range c.at.block {
		switch in.name {
		case "http_protocol":
			switch in.arg(0) {
			case "1.1":
				options["version"] = "1.1"
				in.exact("checks.version")
			case "1.0", "1.0C", "1.0c":
				in.exact("checks.version")
			default:
				in.missing("no version that keepalived has")
			}
		case "fast_recovery":
			in.needless("each url has a check of its own")
		case "enable_sni", "tls_compliant":
		}
	}
	if kind == "https" {
		c.tls(options)
	}
	for _, u := range c.at.block {
		if u.name == "url" {
			u.exact("checks")
			list = append(list, check{CheckSettings: k, options: c.url(u, options)})
		}
	}
	if len(list) == 0 {
		c.at.missing("it has no url")
	}
	return list
}

// tls maps SSL_GET's own options and the block SSL.
func (c *kaCheck) tls(options map[string]any) {
	if sni := c.at.find("enable_sni"); sni != nil {
		sni.exact("checks.host")
	}
	if s := c.ssl; s != nil {
		s.exact("checks")
		for _, in := range s.block {
			switch in.name {
			case "ca", "cafile":
				pemFile(in, "ca", options)
			case "certificate", "certfile":
				pemFile(in, "cert", options)
			case "key", "keyfile":
				pemFile(in, "key", options)
			case "password":
				in.missing("keys with a password aren't read; take it off: openssl pkey")
			default:
				in.missing("no keyword that the importer knows here")
			}
		}
	}
}

// pemFile maps a file with certificates or a key. Who validates the option reads the file, so that it mustn't be a device.
func pemFile(d *directive, key string, options map[string]any) {
	if info, err := os.Stat(d.arg(0)); err == nil && (!info.Mode().IsRegular() || info.Size() > maxPEM) {
		d.missing("no file of certificates or keys")
		return
	}
	options[key] = d.arg(0)
	d.exact("checks." + key)
}

const maxPEM = 4 << 20

// url maps one url of a checker.
func (c *kaCheck) url(u *directive, common map[string]any) map[string]any {
	o := map[string]any{}
	for k, v := range common {
		o[k] = v
	}
	if p := u.find("path"); p != nil && p.arg(0) != "" {
		o["path"] = strings.ReplaceAll(p.arg(0), " ", "%20")
		p.exact("checks.path")
	}
	if d := u.find("digest"); d != nil {
		o["digest"] = strings.ToLower(d.arg(0))
		d.exact("checks.digest")
	}
	o["status"] = "200-299"
	if s := u.find("status_code"); s != nil {
		o["status"] = strings.Join(s.args, ",")
		s.exact("checks.status")
	}
	h := u.find("virtualhost")
	if h == nil {
		h = c.defaults.host
	}
	if h != nil && h.arg(0) != "" {
		o["host"] = h.arg(0)
		h.exact("checks.host")
	}
	c.regex(u, o)
	return o
}

// regex maps what is looked for in an answer.
func (c *kaCheck) regex(u *directive, o map[string]any) {
	r := u.find("regex")
	flags := ""
	for _, in := range u.block {
		switch in.name {
		case "regex_no_match":
			in.missing("uvs knows no pattern that must not match")
			r = nil
		case "regex_min_offset", "regex_max_offset":
			in.missing("uvs looks for the pattern from the beginning on")
		case "regex_stack":
			in.needless("Go's regular expressions need none")
		case "regex_options":
			in.exact("checks.match")
			for _, option := range in.args {
				flag, known := map[string]string{"caseless": "i", "multiline": "m", "dotall": "s", "ungreedy": "U",
					"no_auto_capture": "", "no_auto_possess": "", "no_dotstar_anchor": "", "no_start_optimize": "", "auto_callout": "",
					"never_ucp": "", "never_utf": "", "utf": "", "dupnames": "", "never_backslash_c": "", "use_offset_limit": ""}[option]
				if !known {
					in.missing("Go's regular expressions have no " + option)
				}
				flags += flag
			}
		}
	}
	if r == nil {
		if r = u.find("regex"); r != nil {
			r.missing("uvs knows no pattern that must not match")
		}
		return
	}
	pattern := r.rest(0)
	if flags != "" {
		pattern = "(?" + flags + ")" + pattern
	}
	if _, err := regexp.Compile(pattern); err != nil {
		r.missing("Go's regular expressions (RE2) don't have this: " + cmp.Or(err.Error(), "?"))
		return
	}
	o["match"] = pattern
	r.approx("checks.match: Go's regular expressions (RE2), not Perl's")
}

// hexString reads keepalived's way of writing bytes: pairs of digits, a digit alone before a blank being one of its own. Where
// x stands for a digit, loose has the half bytes that aren't looked at.
func hexString(s string) (b, loose []byte, err error) {
	wild := false
	for word := range strings.FieldsSeq(s) {
		for len(word) > 0 {
			part := word[:min(2, len(word))]
			word = word[len(part):]
			var v, mask byte
			for _, c := range []byte(part) {
				at := strings.IndexByte("0123456789abcdef", c|0x20)
				if c < '0' {
					at = -1
				}
				v, mask = v<<4, mask<<4
				switch {
				case c|0x20 == 'x':
					mask |= 0xf
					wild = true
				case at < 0:
					return nil, nil, fmt.Errorf("%q is no hexadecimal digit", c)
				default:
					v |= byte(at)
				}
			}
			b, loose = append(b, v), append(loose, mask)
		}
	}
	if !wild {
		loose = nil
	}
	return b, loose, nil
}

// hexEscapes writes bytes as a check's options have them.
func hexEscapes(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		switch {
		case c == '\r':
			s.WriteString(`\r`)
		case c == '\n':
			s.WriteString(`\n`)
		case c == '\t':
			s.WriteString(`\t`)
		case c == '\\':
			s.WriteString(`\\`)
		case c >= ' ' && c < 0x7f:
			s.WriteByte(c)
		default:
			fmt.Fprintf(&s, `\x%02x`, c)
		}
	}
	return s.String()
}
