// Package sip finds what tells SIP calls apart, for the persistence engine of that name: messages of one call, which may
// come from other ports and through other proxies, go to one real server.
package sip

// MaxCallID is the length in bytes of the longest Call-ID that a call is told by (ip_vs.h, IP_VS_PEDATA_MAXLEN).
const MaxCallID = 255

// CallID returns the value of the first Call-ID header, long or compact, of the SIP message (RFC 3261 section 20.8) that a
// UDP datagram carries; it lies in payload. It is found exactly where ip_vs_pe_sip finds one (with nf_conntrack_sip.c,
// ct_sip_get_header): behind the first line, not in continuation lines; a word, or two joined by @; in whole, with the
// end of its line; and not too long. Of a datagram without one ok is false: IPVS drops it, if no connection has it.
func CallID(payload []byte) (id []byte, ok bool) {
	for at := 0; ; {
		value, found := header(payload, at)
		if !found {
			return nil, false
		}
		n := wordLen(payload[value:])
		if end := value + n; n > 0 && end < len(payload) && payload[end] == '@' {
			host := wordLen(payload[end+1:])
			n += 1 + host
			if host == 0 {
				n = 0
			}
		}
		if n == 0 {
			at = value // no value that could be one: perhaps there is another header
			continue
		}
		end := value + n
		if n > MaxCallID || end == len(payload) || payload[end] != '\r' && payload[end] != '\n' {
			return nil, false
		}
		return payload[value:end], true
	}
}

const (
	name    = "call-id"
	compact = 'i'
)

// header returns where the value of the next Call-ID header behind at begins. A line that begins like one and isn't ends
// the search.
func header(b []byte, at int) (value int, found bool) {
	for ; at < len(b); at++ {
		if b[at] != '\r' && b[at] != '\n' {
			continue
		}
		if at = newline(b, at); at >= len(b) {
			return 0, false
		}
		if b[at] == ' ' || b[at] == '\t' {
			continue
		}
		switch {
		case isName(b[at:]):
			at += len(name)
		case lower(b[at]) == compact && at+1 < len(b) && !isAlpha(b[at+1]):
			at++
		default:
			continue
		}
		if at, found = skipBlanks(b, at); !found || at >= len(b) || b[at] != ':' || at+1 >= len(b) {
			return 0, false
		}
		return skipBlanks(b, at+1)
	}
	return 0, false
}

// newline returns what follows the end of a line: CR, LF or both, the first of which is at.
func newline(b []byte, at int) int {
	at++
	if b[at-1] == '\r' && at < len(b) && b[at] == '\n' {
		at++
	}
	return at
}

// skipBlanks skips blanks, and one end of a line whose next line goes on with it. ok is false at an end that isn't such.
func skipBlanks(b []byte, at int) (next int, ok bool) {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t') {
		at++
	}
	if at == len(b) || b[at] != '\r' && b[at] != '\n' {
		return at, true
	}
	if at = newline(b, at); at >= len(b) || b[at] != ' ' && b[at] != '\t' {
		return at, false
	}
	for at < len(b) && (b[at] == ' ' || b[at] == '\t') {
		at++
	}
	return at, true
}

func isName(b []byte) bool {
	if len(b) < len(name) {
		return false
	}
	for i := range len(name) {
		if lower(b[i]) != name[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// isAlpha says that c is a letter of Latin-1, as the kernel's own isalpha has it.
func isAlpha(c byte) bool {
	l := lower(c)
	return l >= 'a' && l <= 'z' || c >= 0xc0 && c != 0xd7 && c != 0xf7
}

// wordLen is the length of the word (RFC 3261 section 25.1) that b begins with, with the kernel's letters.
func wordLen(b []byte) (n int) {
	for n < len(b) && isWord(b[n]) {
		n++
	}
	return n
}

func isWord(c byte) bool {
	switch c {
	case '-', '.', '/', '!', '%', '*', '_', '+', '`', '\'', '(', ')', '<', '>', ':', '\\', '"', '[', ']', '?', '{', '}', '~':
		return true
	}
	return isAlpha(c) || c >= '0' && c <= '9'
}
