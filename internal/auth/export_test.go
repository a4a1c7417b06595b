package auth

// WithNonce makes the server's part of the nonce of a SCRAM dialogue known.
func WithNonce(x Exchange, nonce string) Exchange {
	x.(*scramExchange).nonce = func() string { return nonce }
	return x
}

// The parsers of what clients say.
var (
	ParseClientFirst = func(text string) (name, nonce string, err error) {
		m, err := parseClientFirst(text)
		return m.name, m.nonce, err
	}
	ParseClientFinal = func(text string) (nonce string, proof []byte, err error) {
		m, err := parseClientFinal(text)
		return m.nonce, m.proof, err
	}
	ParseOAuthBearer = parseOAuthBearer
	ParseXOAuth2     = parseXOAuth2
)
