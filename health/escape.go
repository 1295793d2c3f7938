package health

import (
	"fmt"
	"strconv"
	"strings"
)

// unescape turns \r \n \t \0 \\ and \xHH into the bytes they stand for.
func unescape(s string) ([]byte, error) {
	var out []byte
	for {
		plain, rest, found := strings.Cut(s, `\`)
		out = append(out, plain...)
		if !found {
			return out, nil
		}
		if rest == "" {
			return nil, fmt.Errorf(`a \ at the end stands for nothing; write \\ for itself`)
		}
		s = rest[1:]
		switch rest[0] {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '0':
			out = append(out, 0)
		case '\\':
			out = append(out, '\\')
		case 'x':
			if len(s) < 2 {
				return nil, fmt.Errorf(`\x wants two hexadecimal digits`)
			}
			b, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				return nil, fmt.Errorf(`\x%s is no hexadecimal number of two digits`, s[:2])
			}
			out, s = append(out, byte(b)), s[2:]
		default:
			return nil, fmt.Errorf(`\%c stands for nothing; there are \r \n \t \0 \\ \xHH`, rest[0])
		}
	}
}
