package importer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

func tooMuch(err error) bool { return errors.Is(err, errTooMuch) }

// sequence reads what stands in the brackets of ~SEQ: var, [start, [step,]] end.
func sequence(inside string, hex bool, most int) (names []string, values [][]string, err error) {
	parts := strings.Split(inside, ",")
	name := strings.TrimSpace(parts[0])
	if !isName(name) || len(parts) < 2 || len(parts) > 4 {
		return nil, nil, errors.New("~SEQ wants a variable, and first, step and last number")
	}
	var n [3]int64
	for i, p := range parts[1:] {
		if n[i], err = strconv.ParseInt(strings.TrimSpace(p), 0, 32); err != nil {
			return nil, nil, fmt.Errorf("~SEQ: %s is no number", strings.TrimSpace(p))
		}
	}
	first, step, last := int64(1), int64(1), n[0]
	switch len(parts) {
	case 2:
		if last < 1 {
			first, step = 1, -1
			if last < 0 {
				first = -1
			}
		}
	case 3:
		first, last = n[0], n[1]
		if first > last {
			step = -1
		}
	case 4:
		first, step, last = n[0], n[1], n[2]
	}
	if step == 0 || first < last && step < 0 || first > last && step > 0 {
		return nil, nil, errors.New("~SEQ never comes to its end")
	}
	if hex && (first < 0 || last < 0) {
		return nil, nil, errors.New("~SEQx has no negative numbers")
	}
	if (last-first)/step >= int64(most) {
		return nil, nil, fmt.Errorf("~SEQ: more than %d values: %w", most, errTooMuch)
	}
	base := 10
	if hex {
		base = 16
	}
	for v := first; step > 0 && v <= last || step < 0 && v >= last; v += step {
		values = append(values, []string{strconv.FormatInt(v, base)})
	}
	return []string{name}, values, nil
}

// list reads what stands in the brackets of ~LST: var, value... or {var, var}, {value, value}...
func list(inside string) (names []string, values [][]string, err error) {
	var elements [][]string
	for rest := inside; ; {
		rest = strings.TrimSpace(rest)
		var element []string
		if tail, braced := strings.CutPrefix(rest, "{"); braced {
			in, after, closed := strings.Cut(tail, "}")
			if !closed {
				return nil, nil, errors.New("~LST: a } is missing")
			}
			for v := range strings.SplitSeq(in, ",") {
				element = append(element, strings.TrimSpace(v))
			}
			rest = strings.TrimSpace(after)
			if rest != "" && rest[0] != ',' {
				return nil, nil, errors.New("~LST: a comma is missing")
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			element, rest = []string{strings.TrimSpace(rest[:end])}, rest[end:]
		}
		elements = append(elements, element)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	names, values = elements[0], elements[1:]
	for _, n := range names {
		if !isName(n) {
			return nil, nil, fmt.Errorf("~LST: %q is no variable", n)
		}
	}
	if len(values) == 0 {
		return nil, nil, errors.New("~LST has no values")
	}
	for _, v := range values {
		if len(v) != len(names) {
			return nil, nil, errors.New("~LST has another number of values than of variables")
		}
	}
	return names, values, nil
}
