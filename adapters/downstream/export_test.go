package downstream

import "github.com/sluice-iot/sluice/adapters"

// ReadInbound reads what comes by command_internal: a command, or so many news.
func ReadInbound(message []byte) (c *adapters.Command, news int, err error) {
	in, err := readInbound(message)
	return in.command, len(in.news), err
}

// SettleTimeout and MaxChanges are as in force.
const (
	SettleTimeout = settleTimeout
	MaxChanges    = maxChanges
)
