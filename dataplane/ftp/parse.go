package ftp

import (
	"bytes"
	"iter"
	"net/netip"
	"strconv"

	"uvs/packet"
)

// lines yields the lines of a payload with their ends. The last may have none.
func lines(payload []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(payload) > 0 {
			n := bytes.IndexByte(payload, '\n') + 1
			if n == 0 {
				n = len(payload)
			}
			if !yield(payload[:n:n]) {
				return
			}
			payload = payload[n:]
		}
	}
}

// after returns what follows a word, in any case, at the start of a line.
func after(line []byte, word string) ([]byte, bool) {
	if len(line) < len(word) || !bytes.EqualFold(line[:len(word)], []byte(word)) {
		return nil, false
	}
	return line[len(word):], true
}

// isPASV says that a line is PASV (RFC 959 section 4.1.2).
func isPASV(line []byte) bool {
	rest, ok := after(line, "PASV")
	return ok && (string(rest) == "\r\n" || string(rest) == "\n")
}

// isEPSV says that a line is EPSV, by itself or for the connection's own family (RFC 2428 section 3). EPSV ALL asks for
// nothing by itself.
func isEPSV(line []byte, is4 bool) bool {
	rest, ok := after(line, "EPSV")
	if !ok {
		return false
	}
	switch string(rest) {
	case "\r\n", "\n":
		return true
	case " 1\r\n", " 1\n":
		return is4
	case " 2\r\n", " 2\n":
		return !is4
	}
	return false
}

// parsePORT reads PORT (RFC 959) or EPRT (RFC 2428 section 2) of the connection's own family: where the client listens.
func parsePORT(line []byte, is4 bool) (to packet.Addr, port uint16, ok bool) {
	if rest, isPORT := after(line, "PORT"); isPORT && is4 {
		if at := blanks(rest); at > 0 {
			to, port, _, ok = hostPort(rest[at:])
		}
		return to, port, ok
	}
	if rest, isEPRT := after(line, "EPRT"); isEPRT {
		if at := blanks(rest); at > 0 {
			to, port, _, ok = extended(rest[at:], is4, true)
		}
		return to, port, ok
	}
	return to, 0, false
}

// blanks is the number of blanks at the start of b.
func blanks(b []byte) (n int) {
	for n < len(b) && b[n] == ' ' {
		n++
	}
	return n
}

// parse227 reads the reply to PASV: 227 and, somewhere in its text, h1,h2,h3,h4,p1,p2, which begins with the first digit
// or opening parenthesis (RFC 1123 section 4.1.2.6).
func parse227(line []byte) (r Reply, found Found) {
	rest, ok := after(line, "227 ")
	if !ok {
		return r, Nothing
	}
	at := bytes.IndexFunc(rest, func(c rune) bool { return c == '(' || c >= '0' && c <= '9' })
	for at >= 0 && at < len(rest) && rest[at] == '(' {
		at++
	}
	if at < 0 {
		return r, Nothing
	}
	addr, port, n, ok := hostPort(rest[at:])
	if !ok {
		return r, Nothing
	}
	start := len(line) - len(rest) + at
	return Reply{Server: addr, Port: port, start: start, end: start + n}, Named
}

// parse229 reads the reply to EPSV: 229 and, in parentheses, |||port| (RFC 2428 section 3).
func parse229(line []byte, is4 bool) (r Reply, found Found) {
	rest, ok := after(line, "229 ")
	if !ok {
		return r, Nothing
	}
	at := bytes.IndexByte(rest, '(')
	for at >= 0 && at < len(rest) && rest[at] == '(' {
		at++
	}
	if at < 0 {
		return r, Nothing
	}
	_, port, n, ok := extended(rest[at:], is4, false)
	if !ok {
		return r, Nothing
	}
	start := len(line) - len(rest) + at
	return Reply{Port: port, start: start, end: start + n, extended: true}, Named
}

// hostPort reads h1,h2,h3,h4,p1,p2 at the start of b, of n bytes. Something else must follow, or the last number may go
// on in the next segment.
func hostPort(b []byte) (addr packet.Addr, port uint16, n int, ok bool) {
	var numbers [6]uint32
	for i := range numbers {
		digits := n
		for ; n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
			if numbers[i] = numbers[i]*10 + uint32(b[n]-'0'); numbers[i] > 255 {
				return addr, 0, 0, false
			}
		}
		switch {
		case n == digits || n == len(b):
			return addr, 0, 0, false
		case i < 5 && b[n] != ',':
			return addr, 0, 0, false
		case i < 5:
			n++
		}
	}
	addr = packet.AddrFrom4(numbers[0]<<24 | numbers[1]<<16 | numbers[2]<<8 | numbers[3])
	return addr, uint16(numbers[4]<<8 | numbers[5]), n, true
}

// maxAddrText is the length of the longest address in text.
const maxAddrText = 45

// extended reads |family|address|port| at the start of b, of n bytes, with any delimiter from ! to ~. Where no address is
// asked for, family and address are missing, or are those of the connection's own family.
func extended(b []byte, is4, withAddr bool) (addr packet.Addr, port uint16, n int, ok bool) {
	if len(b) == 0 || b[0] < 33 || b[0] > 126 {
		return addr, 0, 0, false
	}
	delimiter, fields := b[0], [3][]byte{}
	n = 1
	for i := range fields {
		length := bytes.IndexByte(b[n:min(len(b), n+maxAddrText+1)], delimiter)
		if length < 0 {
			return addr, 0, 0, false
		}
		fields[i] = b[n : n+length]
		n += length + 1
	}
	switch family := string(fields[0]); {
	case family == "" && len(fields[1]) == 0 && !withAddr:
	case family == "1" && is4, family == "2" && !is4:
		a, err := netip.ParseAddr(string(fields[1]))
		if err != nil || a.Is4() != is4 || a.Is4In6() || a.Zone() != "" {
			return addr, 0, 0, false
		}
		addr = packet.AddrFrom(a)
	default:
		return addr, 0, 0, false
	}
	number, err := strconv.ParseUint(string(fields[2]), 10, 16)
	if err != nil || number == 0 || fields[2][0] == '+' {
		return addr, 0, 0, false
	}
	return addr, uint16(number), n, true
}

// text is what stands in a changed reply instead of the server's words.
type text struct {
	b [maxText]byte
	n int
}

// maxText is the longest text: six numbers of three digits, with commas.
const maxText = 6*3 + 5

func textOf(extended bool, virtual packet.Addr, port uint16) (t text) {
	b := t.b[:0]
	if extended {
		b = append(b, "|||"...)
		b = strconv.AppendUint(b, uint64(port), 10)
		b = append(b, '|')
	} else {
		a := virtual.V4()
		for i, n := range [6]uint32{a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, uint32(port) >> 8, uint32(port) & 255} {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(n), 10)
		}
	}
	t.n = len(b)
	return t
}
