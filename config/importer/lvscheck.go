package importer

import (
	"regexp"
	"strings"
	"time"

	"uvs/config"
)

// checks maps what nanny does.
func (m *lvsMapper) checks(v, server *directive, service *config.Service, s *config.Server, own int) []check {
	interval := 10 * time.Second // Piranha's default
	if t := v.find("timeout"); t != nil {
		if n, err := whole(t.arg(0), 1, 86400); err != nil {
			t.missing(err.Error())
		} else {
			interval = time.Duration(n) * time.Second
			t.approx("checks.interval: nanny waits so long between two attempts")
		}
	}
	k := check{options: map[string]any{}}
	k.Interval, k.Timeout, k.Fall, k.Rise = config.Duration(interval), config.Duration(min(interval, 10*time.Second)), 1, 1
	reentry := 180 * time.Second // Piranha's default
	r := v.find("reentry")
	if r != nil {
		if n, err := whole(r.arg(0), 0, 86400); err != nil {
			r.missing(err.Error())
		} else {
			reentry = time.Duration(n) * time.Second
			r.approx("checks.rise: so many successes, one an interval, that the time has passed")
		}
	}
	k.Rise = int(min(max((reentry+interval-1)/interval, 1), 1000))
	if m.method != "nat" {
		k.Via = "direct" // nanny asks the server's own address
	}
	if service.FWMark != 0 && s.Port == 0 {
		k.Port = uint16(own)
	}
	program := v.find("send_program")
	switch {
	case program != nil && program.arg(0) != "":
		m.program(v, program, &k)
	default:
		m.exchange(v, &k)
	}
	if _, err := fits(k); err != nil {
		server.missing("its check: " + err.Error())
		return nil
	}
	return []check{k}
}

// program maps send_program, whose output must be expect.
func (m *lvsMapper) program(v, program *directive, k *check) {
	k.Kind, k.Via, k.Port = "exec", "", 0
	words := program.args
	if len(words) == 1 {
		words = piranhaWords(words[0])
	}
	for i, w := range words {
		words[i] = strings.ReplaceAll(strings.ReplaceAll(w, "%", "%%"), "%%h", "%h")
	}
	k.options[execCommand] = strings.Join(quoteAll(words), " ")
	program.exact("checks." + execCommand)
	for _, name := range []string{"expect", "expect_program"} {
		d := v.find(name)
		if d == nil || d.arg(0) == "" {
			continue
		}
		pattern := "^" + regexp.QuoteMeta(nannyText(d.arg(0)))
		if u := v.find("use_regex"); u != nil && u.arg(0) == "1" {
			pattern = d.arg(0)
			u.exact("checks." + execMatch)
		}
		if _, err := regexp.Compile(pattern); err != nil {
			d.missing("Go's regular expressions (RE2) don't have this: " + err.Error())
			continue
		}
		k.options[execMatch] = pattern
		d.approx("checks." + execMatch + ": and the program must end with the status 0")
	}
	if s := v.find("send"); s != nil {
		s.needless("send_program takes its place")
	}
}

// exchange maps send and expect.
func (m *lvsMapper) exchange(v *directive, k *check) {
	send, expect := v.find("send"), v.find("expect")
	k.Kind = "tcp"
	udp := false
	if p := v.find("protocol"); p != nil {
		udp = p.arg(0) == "udp"
	}
	if (send == nil || send.arg(0) == "") && (expect == nil || expect.arg(0) == "") {
		if udp {
			k.Kind = "udp"
		}
		return
	}
	k.Kind = talkKind
	if send != nil && send.arg(0) != "" {
		k.options[talkSend] = hexEscapes([]byte(nannyText(send.arg(0))))
		send.exact("checks." + talkSend)
	}
	if expect == nil || expect.arg(0) == "" {
		return
	}
	if u := v.find("use_regex"); u != nil && u.arg(0) == "1" {
		if _, err := regexp.Compile(expect.arg(0)); err != nil {
			expect.missing("Go's regular expressions (RE2) don't have this: " + err.Error())
			return
		}
		k.options[talkMatch] = expect.arg(0)
		u.exact("checks." + talkMatch)
		expect.approx("checks." + talkMatch + ": Go's regular expressions (RE2), not POSIX's")
		return
	}
	if text := nannyText(expect.arg(0)); text == "*" {
		k.options[talkExpect] = "*"
	} else {
		k.options[talkExpect] = hexEscapes([]byte(text))
	}
	expect.exact("checks." + talkExpect)
	if u := v.find("use_regex"); u != nil {
		u.exact("checks." + talkExpect)
	}
}

// nannyText reads nanny's escapes: \n, \r and \t; a backslash takes any other character as it is.
func nannyText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			if at := strings.IndexByte("nrt", s[i]); at >= 0 {
				b.WriteByte("\n\r\t"[at])
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
