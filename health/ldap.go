package health

import (
	"context"
	"errors"
	"fmt"
)

// LDAP is the kind "ldap": a directory server must answer a simple bind (RFC 4511 section 4.2).
type LDAP struct {
	// DN is who binds. Default: nobody, anonymously.
	DN string `json:"dn,omitempty"`
	// Password is dn's.
	Password string `json:"password,omitempty"`
	Secure

	bind []byte
}

// BER's tags, and LDAP's operations (RFC 4511 section 4.2 and 4.12).
const (
	berInteger     = 0x02
	berOctetString = 0x04
	berEnumerated  = 0x0a
	berSequence    = 0x30

	ldapBindRequest      = 0x60
	ldapBindResponse     = 0x61
	ldapUnbindRequest    = 0x42
	ldapExtendedRequest  = 0x77
	ldapExtendedResponse = 0x78
	ldapContext0         = 0x80 // the simple password, or the name of an extended request

	ldapStartTLS   = "1.3.6.1.4.1.1466.20037" // RFC 4511 section 4.14.1
	ldapMaxMessage = 16 << 10
)

// Kind implements Prober.
func (*LDAP) Kind() string { return "ldap" }

// Prepare implements Prober.
func (l *LDAP) Prepare() error {
	if len(l.DN)+len(l.Password) > 4096 {
		return errors.New("dn: longer than 4096 bytes")
	}
	if l.DN != "" && l.Password == "" {
		return errors.New("password: a bind without one is anonymous, whatever the dn")
	}
	operation := ber(ldapBindRequest, ber(berInteger, []byte{3}), ber(berOctetString, []byte(l.DN)), ber(ldapContext0, []byte(l.Password)))
	l.bind = ber(berSequence, ber(berInteger, []byte{2}), operation)
	return l.Secure.prepare("")
}

// Probe implements Prober.
func (l *LDAP) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := l.open(t); err != nil {
		return "", err
	}
	if l.starts() {
		if _, err := t.Write(ber(berSequence, ber(berInteger, []byte{1}), ber(ldapExtendedRequest, ber(ldapContext0, []byte(ldapStartTLS))))); err != nil {
			return "", because("cannot send", err)
		}
		if err := t.ldapResult(1, ldapExtendedResponse, "reply to StartTLS"); err != nil {
			return "", err
		}
		if err := t.startTLS(l.config); err != nil {
			return "", err
		}
	}
	if _, err := t.Write(l.bind); err != nil {
		return "", because("cannot send", err)
	}
	if err := t.ldapResult(2, ldapBindResponse, "reply to the bind"); err != nil {
		return "", err
	}
	t.bye(ber(berSequence, ber(berInteger, []byte{3}), ber(ldapUnbindRequest)))
	return "bound", nil
}

// ldapResult reads the response to a message, which must be a success.
func (t *talk) ldapResult(id, operation byte, what string) error {
	b, err := t.ldapMessage(what)
	if err != nil {
		return err
	}
	code, text, ok := parseLDAPResult(b, id, operation)
	switch {
	case !ok:
		return fmt.Errorf("no %s: what comes isn't LDAP", what)
	case code != 0:
		return fmt.Errorf("%s: result %d (%s) %s", what, code, ldapResults[code], printable(text))
	}
	return nil
}

// ldapResults are the names of results that a bind may have (RFC 4511 appendix A).
var ldapResults = map[int]string{
	1: "operationsError", 2: "protocolError", 7: "authMethodNotSupported", 8: "strongerAuthRequired", 13: "confidentialityRequired", 32: "noSuchObject",
	34: "invalidDNSyntax", 48: "inappropriateAuthentication", 49: "invalidCredentials", 50: "insufficientAccessRights", 51: "busy", 52: "unavailable",
	53: "unwillingToPerform", 80: "other",
}

// ldapMessage reads what a message's outermost sequence has.
func (t *talk) ldapMessage(what string) ([]byte, error) {
	head := make([]byte, 2, 6)
	if err := t.full(head, what); err != nil {
		return nil, err
	}
	if n := int(head[1] & 0x7f); head[1]&0x80 != 0 {
		if n == 0 || n > 4 {
			return nil, fmt.Errorf("no %s: what comes isn't LDAP", what)
		}
		head = head[:2+n]
		if err := t.full(head[2:], what); err != nil {
			return nil, err
		}
	}
	n, _, ok := berLength(head[1:])
	if !ok || head[0] != berSequence || n > ldapMaxMessage {
		return nil, fmt.Errorf("no %s: what comes isn't LDAP", what)
	}
	b := make([]byte, n)
	return b, t.full(b, what)
}

// parseLDAPResult reads an LDAPResult out of what a message's sequence has. ok is false if that is none, or of another message.
func parseLDAPResult(b []byte, id, operation byte) (code int, text string, ok bool) {
	number, rest, ok := berNext(b, berInteger)
	if !ok || len(number) != 1 || number[0] != id {
		return 0, "", false
	}
	result, _, ok := berNext(rest, operation)
	if !ok {
		return 0, "", false
	}
	value, rest, ok := berNext(result, berEnumerated)
	if !ok || len(value) == 0 || len(value) > 2 {
		return 0, "", false
	}
	for _, v := range value {
		code = code<<8 | int(v)
	}
	_, rest, ok = berNext(rest, berOctetString) // the matched DN
	if !ok {
		return 0, "", false
	}
	message, _, ok := berNext(rest, berOctetString)
	return code, string(message), ok
}

// ber is a value of BER with parts as its contents.
func ber(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := []byte{tag}
	if n < 0x80 {
		b = append(b, byte(n))
	} else {
		b = append(b, 0x82, byte(n>>8), byte(n)) // nothing here is longer
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// berNext takes the value with a tag from the start of b.
func berNext(b []byte, tag byte) (value, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, size, ok := berLength(b[1:])
	if !ok || n > len(b)-1-size {
		return nil, nil, false
	}
	b = b[1+size:]
	return b[:n], b[n:], true
}

// berLength reads a length of the definite form, and how many bytes it takes.
func berLength(b []byte) (n, size int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	if b[0] < 0x80 {
		return int(b[0]), 1, true
	}
	k := int(b[0] & 0x7f)
	if k == 0 || k > 4 || len(b) < 1+k {
		return 0, 0, false
	}
	for _, v := range b[1 : 1+k] {
		n = n<<8 | int(v)
	}
	return n, 1 + k, n <= 1<<24
}
