package health

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"uvs/service"
)

// SIP is the kind "sip": a SIP server must answer OPTIONS (RFC 3261 section 11). It is asked by UDP, or by TCP for a service of TCP.
type SIP struct {
	// URI is what is asked. Default sip: and the real server's address and port.
	URI string `json:"uri,omitempty"`
	// From is who asks. Default sip:uvs@ and the address that the probe comes from.
	From string `json:"from,omitempty"`
	// Status are the answers that are good, numbers and ranges with commas between them. Default 200.
	Status string `json:"status,omitempty"`
	Secure

	codes []codeRange
}

// Kind implements Prober.
func (*SIP) Kind() string { return "sip" }

// Prepare implements Prober.
func (s *SIP) Prepare() error {
	s.Status = cmp.Or(s.Status, "200")
	var err error
	if s.codes, err = parseCodes(s.Status, 200, 699); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	for option, value := range map[string]string{"uri": s.URI, "from": s.From} {
		if value != "" && (!strings.Contains(value, ":") || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`<>"`, r) })) {
			return fmt.Errorf("%s: %q is no URI: sip:user@host is expected", option, value)
		}
	}
	if s.starts() {
		return errors.New("tls: no or yes is expected")
	}
	return s.Secure.prepare("")
}

// Probe implements Prober.
func (s *SIP) Probe(ctx context.Context, to *Target) (string, error) {
	network, transport := "udp", "UDP"
	if to.Protocol == service.TCP || s.Secure.TLS == "yes" {
		network, transport = "tcp", "TCP"
	}
	t, err := dial(ctx, to, network)
	if err != nil {
		return "", err
	}
	defer t.close()
	if s.Secure.TLS == "yes" {
		transport = "TLS"
		if err := s.open(t); err != nil {
			return "", err
		}
	}
	here := t.raw.LocalAddr().String()
	call := rand.Text()
	if err := t.say("OPTIONS %s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\nFrom: <%s>;tag=%s\r\nTo: <%s>\r\n"+
		"Call-ID: %s\r\nCSeq: 1 OPTIONS\r\nContact: <sip:uvs@%s>\r\nAccept: application/sdp\r\nUser-Agent: uvs\r\nContent-Length: 0\r\n\r\n",
		cmp.Or(s.URI, "sip:"+to.Server.String()), transport, here, call[:16], cmp.Or(s.From, "sip:uvs@"+here), call[16:],
		cmp.Or(s.URI, "sip:"+to.Server.String()), call, here); err != nil {
		return "", err
	}
	for range maxOthers {
		m, err := t.sipMessage()
		if err != nil {
			return "", err
		}
		switch {
		case m.call != call || m.code < 200: // another's, or 100 Trying
			if network == "tcp" {
				if _, err := t.r.Discard(m.length); err != nil {
					return "", because("no answer", err)
				}
			}
		case !inRanges(s.codes, m.code):
			return "", fmt.Errorf("status %s, not %s", m.status, s.Status)
		default:
			return m.status, nil
		}
	}
	return "", errOthers
}

// sipMessage is what the head of a response says.
type sipMessage struct {
	code   int
	status string // as the server has it
	call   string // Call-ID
	length int    // of the body
}

// sipMessage reads the head of a response. By UDP it may read on in the next datagram, which is as good as the one before.
func (t *talk) sipMessage() (m sipMessage, err error) {
	line, err := t.line("answer")
	for err == nil && line == "" { // keep-alive
		line, err = t.line("answer")
	}
	if err != nil {
		return m, err
	}
	status, ok := strings.CutPrefix(line, "SIP/2.0 ")
	if ok {
		number, _, _ := strings.Cut(status, " ")
		m.status = printable(status)
		m.code, err = strconv.Atoi(number)
		ok = err == nil && m.code >= 100 && m.code < 700
	}
	if !ok {
		return m, fmt.Errorf("the answer isn't SIP: %q", printable(line))
	}
	for {
		line, err := t.line("end of the answer")
		if err != nil || line == "" {
			return m, err
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "call-id", "i":
			m.call = value
		case "content-length", "l":
			if m.length, err = strconv.Atoi(value); err != nil || m.length < 0 || m.length > talkBytes {
				return m, fmt.Errorf("the answer's length is %q", printable(value))
			}
		}
	}
}
