package ipvsadm

import (
	"strings"

	"uvs/control/api"
)

// Rule is a line of rules as ipvsadm -S writes them and -R reads them.
type Rule struct {
	// Line counts from 1, Text is the line without blanks around it.
	Line int
	Text string
	// Op is what the line asks for. It is nil with Err, and for a line that changes nothing, such as one that lists.
	Op *api.Op
	// Err is why the line means nothing, in ipvsadm's words.
	Err error
}

// ReadRules reads lines as -R does, but for two things: a line that is refused doesn't keep those behind it from being read,
// and comments are passed over as ipvsadm-restore does. Operations are as they were asked for, not checked with each other.
func ReadRules(text string, names Names) (rules []Rule) {
	l := &lookup{names}
	number := 0
	for line := range strings.Lines(text) {
		number++
		s := strings.TrimSpace(line)
		args := restoreFields(strings.TrimRight(line, "\n"))
		if len(args) == 0 || line[0] == '#' {
			continue
		}
		r := Rule{Line: number, Text: s}
		req, err := parse(args, l, true)
		switch {
		case err == errTryHelp:
			r.Err = failf("not a command of ipvsadm")
		case err != nil:
			r.Err = err
		default:
			if r.Op = req.op(); r.Op != nil {
				r.Err = r.Op.Check()
			}
		}
		if r.Err != nil {
			r.Op = nil
		}
		rules = append(rules, r)
	}
	return rules
}
