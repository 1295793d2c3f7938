package ipvsadm

import (
	"errors"
	"strings"
	"syscall"
	"time"

	"uvs/control/top"
)

// top is the word top: a live view in the terminal.
func (r *run) top(args []string) error {
	interval := top.DefaultInterval
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if option != "--interval" && option != "-d" {
			return r.complain("top", "unexpected argument %s", option)
		}
		if !joined {
			if len(args) == 0 {
				return r.complain("top", "%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return r.complain("top", "%s %s: a time such as 2s is needed", option, value)
		}
		interval = d
	}
	err := top.Run(r.ctx, r.Backend, interval)
	if ended := (*top.EndedBy)(nil); errors.As(err, &ended) {
		number, _ := ended.Signal.(syscall.Signal)
		return &failure{exit: 128 + int(number), text: r.Name + ": " + ended.Error()}
	}
	return err
}
