# A server that reads text in images: docker build -t crnn . && docker run -p 8501:8501 -p 8500:8500 crnn
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN python -m venv /opt/crnn && /opt/crnn/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/crnn /opt/crnn
RUN useradd --uid 10001 --no-create-home crnn
USER 10001
ENV PATH=/opt/crnn/bin:$PATH PYTHONDONTWRITEBYTECODE=1
EXPOSE 8501 8500
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["crnn"]
CMD ["serve", "--host", "0.0.0.0"]
