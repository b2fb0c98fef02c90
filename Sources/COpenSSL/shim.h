// What of OpenSSL's C interface Swift cannot spell: function-like macros, typed stacks and variadic calls.
// Each function says which one it stands for. All are static inline: this target has no object file.
// Written for OpenSSL 3.0; SSL_CTX and X509 macros that later releases turn into functions can be called directly then.
#ifndef CULVERT_SSL_SHIM_H
#define CULVERT_SSL_SHIM_H

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>
#include <malloc.h>
#include <time.h>

// Memory

// Sealing and opening a record makes OpenSSL 3.0 take and drop four 40-byte blocks (the WPACKET_SUB of every header it
// writes), and nothing else. Blocks of that size class go through a small stack of the thread, so that the steady path
// stays out of malloc; all other sizes are plain malloc. A block freed on another thread joins that thread's stack;
// a thread that ends leaves at most 1280 bytes behind.
#define CULVERT_SSL_BLOCK 40
#define CULVERT_SSL_BLOCKS 32

struct culvert_ssl_stack {
    void *blocks[CULVERT_SSL_BLOCKS];
    unsigned count;
};

static inline struct culvert_ssl_stack *culvert_ssl_thread_stack(void) {
    static _Thread_local struct culvert_ssl_stack stack;
    return &stack;
}

static inline void *culvert_ssl_malloc(size_t count, const char *file, int line) {
    (void)file, (void)line;
    struct culvert_ssl_stack *stack = culvert_ssl_thread_stack();
    if (count <= CULVERT_SSL_BLOCK && count > CULVERT_SSL_BLOCK - 16 && stack->count > 0)
        return stack->blocks[--stack->count];
    return malloc(count);
}

static inline void culvert_ssl_free(void *block, const char *file, int line) {
    (void)file, (void)line;
    struct culvert_ssl_stack *stack = culvert_ssl_thread_stack();
    if (block != NULL && stack->count < CULVERT_SSL_BLOCKS && malloc_usable_size(block) == CULVERT_SSL_BLOCK)
        stack->blocks[stack->count++] = block;
    else
        free(block);
}

static inline void *culvert_ssl_realloc(void *block, size_t count, const char *file, int line) {
    (void)file, (void)line;
    return realloc(block, count);
}

// 0 when somebody in the process allocated through OpenSSL before: then malloc stays in use, which is only slower.
static inline int culvert_ssl_install_memory(void) {
    return CRYPTO_set_mem_functions(culvert_ssl_malloc, culvert_ssl_realloc, culvert_ssl_free);
}

// Contexts

// Every fixed setting of a context, client or server; 1 when all of them were taken.
// SSL_OP_* are 64-bit function-like constants and the setters are macros over SSL_CTX_ctrl.
static inline int culvert_ssl_configure(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    // Nobody between two nodes needs a TLS 1.3 handshake that looks like TLS 1.2 (RFC 8446, D.4).
    SSL_CTX_clear_options(context, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(context, 2);
    SSL_CTX_set_max_cert_list(context, 64 * 1024);
    // The hybrid group exists from OpenSSL 3.5 on; the list is refused as a whole by a library without it.
    int groups = SSL_CTX_set1_groups_list(context, "X25519MLKEM768:X25519:P-256") == 1 ||
                 SSL_CTX_set1_groups_list(context, "X25519:P-256") == 1;
    return groups && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_num_tickets(context, 0) == 1;
}

// SSL_CTX_add1_chain_cert, a macro.
static inline int culvert_ssl_add_chain_certificate(SSL_CTX *context, X509 *certificate) {
    return (int)SSL_CTX_add1_chain_cert(context, certificate);
}

// Sessions

// SSL_set_msg_callback_arg, a macro over SSL_ctrl.
static inline void culvert_ssl_set_message_argument(SSL *ssl, void *argument) {
    SSL_set_msg_callback_arg(ssl, argument);
}

// Keys

// EVP_EC_gen, a macro over a variadic function.
static inline EVP_PKEY *culvert_ssl_generate_p256(void) { return EVP_EC_gen("P-256"); }

// Memory BIOs

// BIO_get_mem_data, a macro over BIO_ctrl.
static inline long culvert_ssl_memory(BIO *bio, char **bytes) { return BIO_get_mem_data(bio, bytes); }

// Certificates

// ASN1_TIME as unix seconds; -1 where it cannot be read.
static inline int64_t culvert_ssl_unix_time(const ASN1_TIME *time) {
    struct tm fields;
    if (time == NULL || ASN1_TIME_to_tm(time, &fields) != 1) return -1;
    return (int64_t)timegm(&fields);
}

// An extension from its configuration text. The text must never come from outside.
static inline X509_EXTENSION *culvert_ssl_extension(X509 *certificate, X509 *issuer, int nid, const char *text) {
    X509V3_CTX context = {0};
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    return X509V3_EXT_conf_nid(NULL, &context, nid, text);
}

// A subject alternative name of URIs, built from values and not from configuration text.
static inline X509_EXTENSION *culvert_ssl_uri_extension(const char *const *uris, size_t count, int critical) {
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    X509_EXTENSION *extension = NULL;
    int complete = names != NULL;
    for (size_t i = 0; complete && i < count; i++) {
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        complete = name != NULL && text != NULL && ASN1_STRING_set(text, uris[i], -1) == 1;
        if (complete) {
            GENERAL_NAME_set0_value(name, GEN_URI, text);
            text = NULL;
            complete = sk_GENERAL_NAME_push(names, name) > 0;
            if (complete) name = NULL;
        }
        ASN1_IA5STRING_free(text);
        GENERAL_NAME_free(name);
    }
    if (complete) extension = X509V3_EXT_i2d(NID_subject_alt_name, critical, names);
    GENERAL_NAMES_free(names);
    return extension;
}

// XN_FLAG_RFC2253 is an expression of several macros.
static inline int culvert_ssl_print_name(BIO *bio, const X509_NAME *name) {
    return X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0;
}

// Typed stacks are macros.
static inline GENERAL_NAMES *culvert_ssl_certificate_names(const X509 *certificate) {
    return (GENERAL_NAMES *)X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
}

static inline GENERAL_NAMES *culvert_ssl_request_names(X509_REQ *request) {
    STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
    GENERAL_NAMES *names = (GENERAL_NAMES *)X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    return names;
}

static inline int culvert_ssl_name_count(const GENERAL_NAMES *names) {
    return names == NULL ? 0 : sk_GENERAL_NAME_num(names);
}

// The bytes of name `index` when it is a URI, otherwise NULL.
static inline const unsigned char *culvert_ssl_uri(const GENERAL_NAMES *names, int index, int *count) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
    if (name == NULL || name->type != GEN_URI) return NULL;
    *count = ASN1_STRING_length(name->d.uniformResourceIdentifier);
    return ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
}

static inline void culvert_ssl_free_names(GENERAL_NAMES *names) { GENERAL_NAMES_free(names); }

static inline int culvert_ssl_add_request_extension(X509_REQ *request, X509_EXTENSION *extension) {
    STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
    int added = extensions != NULL && sk_X509_EXTENSION_push(extensions, extension) > 0 &&
                X509_REQ_add_extensions(request, extensions) == 1;
    sk_X509_EXTENSION_free(extensions);
    return added;
}

static inline STACK_OF(X509) *culvert_ssl_new_chain(void) { return sk_X509_new_null(); }

// Takes no reference: the caller keeps the certificate alive as long as the chain.
static inline int culvert_ssl_append(STACK_OF(X509) *chain, X509 *certificate) {
    return sk_X509_push(chain, certificate) > 0;
}

static inline void culvert_ssl_free_chain(STACK_OF(X509) *chain) { sk_X509_free(chain); }

#endif
