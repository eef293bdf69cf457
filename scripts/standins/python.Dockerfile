# Stands in for the official `python` image: root.tar is Debian's Python in the places where that has its own.
FROM scratch
ADD root.tar /
COPY ca-certificates.crt /etc/ssl/certs/
COPY pip.conf /etc/pip.conf
CMD ["python3"]
